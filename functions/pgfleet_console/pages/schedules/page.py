"""The entry of schedules in the navigation."""

from __future__ import annotations

from pgfleet_console.page import Page
from pgfleet_console.pages.schedules import edit, found, one

# Fixed words before ids: the first path that fits is taken.
PAGE = Page(
    "Schedules",
    "/schedules",
    "s",
    views=(*found.VIEWS, *edit.VIEWS, *one.VIEWS),
    acts=(*found.ACTS, *edit.ACTS, *one.ACTS),
)
