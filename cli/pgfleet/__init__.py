"""Schedule, command and watch a fleet of devices from Postgres."""

__version__ = "0.1.0"
