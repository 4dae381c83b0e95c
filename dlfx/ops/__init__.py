"""Pure array functions without parameters, one file per idea."""
