"""Show a small fleet at work on a platform of its own, and account for every command."""
