"""Who may come in: by a one-time link on a laptop, by the project's tokens as a service."""
