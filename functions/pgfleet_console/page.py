"""What a page is made of, and how one is added.

To add a page:

1. Write `pages/NAME.py` with handlers, and a `PAGE` that names them::

       async def show_all(look: Look) -> Shown:
           rows = await look.db.find("device_list", order=("hostname",), limit=100)
           return Shown("devices.html", {"rows": rows})

       async def retire(look: Look) -> Gone:
           await look.db.value("retire_device", p_device_id=look.number("id"))
           return Gone(f"/devices/{look.params['id']}", "Retired.")

       PAGE = Page(
           "Devices", "/devices", "d",
           views=(View("/devices", show_all, live=True),),
           acts=(Act("/devices/{id}/retire", retire),),
       )

2. Write `templates/NAME.html`, which extends `layout.html` and fills its blocks: `title`, `above`,
   `live` and `below`. What moves by itself is in `live`: the handler is run again whenever
   something may have changed, and only that block is sent. In every template `ui` has what pages
   share, see `macros.html`: states, bars, buttons, confirmations, searches.
3. Name it in `table.py`: one line, in the order of the navigation. Its key is what follows `g`.

A handler is a function of what it is given: it reads by `look.db`, as the person who looks, and
answers with data. It never sees the request, so that a live page can be shown again without one.
A view cannot change anything: its transaction is read-only. An act is a POST whose form carries
`{{ csrf }}`; what the database refuses becomes a page with the hint, unless the act has `refused`,
which shows the form again with what is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from pgfleet.errors import FleetError, InvalidInput, NotFound
from pgfleet_console.database import Database
from pgfleet_console.lately import Lately
from pgfleet_console.settings import Tiles
from pgfleet_console.viewers import Viewer

LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Shown:
    """A page: a template that extends the layout, and what is in it."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a page, asked for by the script: a template without the layout."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gone:
    """Something was done; the browser goes to another page, which says so."""

    to: str
    said: str = ""


@dataclass(slots=True)
class Look:
    """What a handler is given: which page, what was asked or sent, and the way to the database."""

    viewer: Viewer
    db: Database
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    # All values of fields that are sent more than once, such as checkboxes.
    lists: Mapping[str, list[str]] = field(default_factory=dict)
    tiles: Tiles | None = None
    # Whether the page is open already and shown again.
    is_again: bool = False
    kept: Lately = field(default_factory=Lately)

    async def lately(self, name: Hashable, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Give what costs much, and is the same on all pages that one viewer has open.

        A page that is shown again has it from just now; nobody may change what it gets.
        """
        # Not for all who see the same fleets: what they see of them is for row security to say.
        key = (self.viewer.claims, name)
        return await self.kept.get(key, ask, is_again=self.is_again)

    def number(self, name: str) -> int:
        """Give an id of the path; what is no number is the id of nothing."""
        return whole(self.params[name])

    def asked_number(self, name: str) -> int | None:
        """Give a number of the query, where it has one."""
        text = self.query.get(name, "")
        return whole(text) if text else None

    def with_query(self, **changes: Any) -> str:
        """Give the address of this page with other words in its query; None takes one away."""
        asked = {**self.query, **changes}
        text = urlencode({name: value for name, value in asked.items() if value not in (None, "")})
        return f"{self.path}?{text}" if text else self.path

    def confirmed(self, name: str) -> None:
        """Refuse unless the name of what is to be destroyed was typed."""
        if self.form.get("confirm", "").strip() != name:
            raise InvalidInput(
                f'what was typed is not "{name}"',
                reason="not_confirmed",
                hint="Go back, and type the name exactly as it is written.",
            )


Show = Callable[[Look], Awaitable[Shown | Part]]
Do = Callable[[Look], Awaitable[Shown | Part | Gone]]
Refused = Callable[[Look, FleetError], Awaitable[Shown | Part]]


@dataclass(frozen=True, slots=True)
class View:
    """A path that shows something."""

    path: str
    show: Show
    live: bool = False


@dataclass(frozen=True, slots=True)
class Act:
    """A path that does something when a form is sent there."""

    path: str
    do: Do
    refused: Refused | None = None
    # Whether it only tries, as a preview does: nothing of it stays.
    tries: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A place of the navigation, with all paths below it."""

    title: str
    path: str
    key: str
    views: tuple[View, ...]
    acts: tuple[Act, ...] = ()
    # Whether the navigation has it.
    is_listed: bool = True


def whole(text: str) -> int:
    """Read an id as people write it, also as #17."""
    digits = text.removeprefix("#")
    if not (digits.isascii() and digits.isdecimal() and int(digits[:20]) <= LARGEST_ID):
        raise NotFound(f"{text[:60]} is the id of nothing", reason="not_found")
    return int(digits)
