"""pgfleet blackout: times in which nothing runs."""
