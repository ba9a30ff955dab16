"""Golioth: pulled every few minutes, pushed by webhook, each point stored once."""
