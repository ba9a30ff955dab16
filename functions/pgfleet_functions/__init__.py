"""Serve the HTTP functions that carry work between the database and the outside."""
