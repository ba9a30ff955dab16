"""Connections to other systems, and what all of their providers share."""
