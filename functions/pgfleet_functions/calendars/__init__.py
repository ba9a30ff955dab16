"""Calendars of others: iCalendar read as periods in which nothing runs."""
