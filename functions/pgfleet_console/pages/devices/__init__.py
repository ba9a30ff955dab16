"""Devices: found, looked at, told what to do."""
