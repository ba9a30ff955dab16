"""Devices as a page of the navigation."""

from __future__ import annotations

from pgfleet_console.page import Page
from pgfleet_console.pages.devices import found, one

PAGE = Page("Devices", "/devices", "d", views=(*found.VIEWS, *one.VIEWS), acts=one.ACTS)
