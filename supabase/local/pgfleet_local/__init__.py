"""Run the platform that pgfleet needs on one machine, without Docker."""
