"""The calendar: what ran and what is to come, by month, week, day and as an agenda."""
