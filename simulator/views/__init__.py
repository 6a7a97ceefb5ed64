"""How it is shown: JSON objects, tidy rows and tables."""
