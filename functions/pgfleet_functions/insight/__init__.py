"""What is ahead, for calendar programs."""
