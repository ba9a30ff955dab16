"""Files, packages, and how they reach the fleet."""
