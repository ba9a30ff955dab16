"""Software and files that reach this device."""
