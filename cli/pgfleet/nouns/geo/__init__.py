"""pgfleet geo: when and where apps are blocked."""
