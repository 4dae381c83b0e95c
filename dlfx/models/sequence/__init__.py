"""Networks of sequences and language: recurrent ones, attention and Transformers, n-grams, Hopfield networks."""
