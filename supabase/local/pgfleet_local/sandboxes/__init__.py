"""Stand-ins for outside services, for the part of their contracts that pgfleet uses."""
