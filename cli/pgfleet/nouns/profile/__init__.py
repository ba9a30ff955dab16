"""pgfleet profile: what the MDMs have, and what devices are to have."""
