"""The nouns of the command line: one module each, which reads views and calls functions."""
