"""The device side: hears the doorbell, claims commands, runs them, reports them once."""
