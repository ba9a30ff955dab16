"""Commands that an MDM carries out: providers, and the function that calls them when poked."""
