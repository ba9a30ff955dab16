"""All pages, in the order of the navigation; `page` says how one is added."""

from __future__ import annotations

from pgfleet_console.page import Page
from pgfleet_console.pages import (
    audit,
    commands,
    deployments,
    groups,
    integrations,
    now,
    profiles,
    rollouts,
    runs,
    search,
    settings,
    telemetry,
    webhooks,
)
from pgfleet_console.pages.calendar import page as calendar
from pgfleet_console.pages.devices import page as devices
from pgfleet_console.pages.places import page as places
from pgfleet_console.pages.schedules import page as schedules

PAGES: tuple[Page, ...] = (
    now.PAGE,
    calendar.PAGE,
    schedules.PAGE,
    runs.PAGE,
    commands.PAGE,
    devices.PAGE,
    groups.PAGE,
    places.PAGE,
    profiles.PAGE,
    rollouts.PAGE,
    deployments.PAGE,
    integrations.PAGE,
    telemetry.PAGE,
    webhooks.PAGE,
    audit.PAGE,
    settings.PAGE,
    search.PAGE,
)
