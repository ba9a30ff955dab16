"""Schedules: found, looked at, acted upon one by one or many at once, made and edited."""
