"""pgfleet telemetry: what devices measured, and what follows from it."""
