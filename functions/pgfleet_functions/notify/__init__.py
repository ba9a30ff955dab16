"""Telling people and their systems what happened: webhooks and e-mail."""
