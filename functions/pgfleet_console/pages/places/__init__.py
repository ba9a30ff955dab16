"""The map: where devices and locations are, and what holds there at which time."""
