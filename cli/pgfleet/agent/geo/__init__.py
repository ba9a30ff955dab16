"""Geo schedules on a device: which apps are blocked now, with or without a network."""
