"""Tasks as REST, for people's own scripts."""
