"""pgfleet schedule: when, what and who."""
