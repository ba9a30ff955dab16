"""pgfleet integration: connections to an MDM and other systems."""
