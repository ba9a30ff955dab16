"""Run the servers of the local platform: Postgres, and the gateway in front of it."""
