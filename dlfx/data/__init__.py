"""Sources with random access, the order of examples as a function of (seed, i), and transforms."""
