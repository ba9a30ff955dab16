"""pgfleet owner: whose devices and schedules these are, who runs them, and moving them."""
