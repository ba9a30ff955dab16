"""The page of what each permission allows, as the tests try it."""

from __future__ import annotations

from tests.helpers.permissions import PERMISSIONS, rows

from reference.markdown import page, table

INTRODUCTION = (
    "What a member of an owner may do with each permission alone, and through what; the tests try"
    " every line of it, by a function and as the REST API would send it. `destructive` allows"
    " nothing by itself: it is what `operate` and `manage` need besides for what cannot be undone,"
    " so those lines are for `admin`, who has both. A line without a mark is for devices or for the"
    " engine alone. The ideas behind it: [who may do what](../explanation/who-may-do-what.md)."
)


def permissions() -> str:
    """Give the page."""
    headings = ["what", "through", *(f"`{name}`" for name in PERMISSIONS)]
    return page("Permissions", INTRODUCTION, [table(headings, rows())])
