"""Both directions: names, tags and wanted values of devices, as we have them and as Golioth has.

The database compares and decides; here its questions are answered, and what it wants is written.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value, storable
from pgfleet_functions.golioth.client import Golioth, Record, moment
from pgfleet_functions.integrations.calls import CallFailed, FailureKind

# Where in the LightDB State of a device that is which is wanted of it.
DESIRED = "desired"
# With this key, or at this pace, no other call gets through either.
HOPELESS = (FailureKind.KEY, FailureKind.RATE)
# The lease is short; many writes take longer.
WRITES_A_LEASE = 20

_AGREE = "select fleet.worker_agree(%s, %s, %s)"
_LOG = "select fleet.worker_log_export(%s, %s)"
_TAKEN = ("names_taken", "tags_taken", "desired_taken", "conflicts")


class TakenOver(Exception):
    """Another function has the pull by now; what it read already is stored."""


class Agreeing:
    """Brings both sides of one integration together, page by page."""

    def __init__(
        self,
        pool: Pool,
        golioth: Golioth,
        claim: Mapping[str, Any],
        go_on: Callable[[], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._golioth = golioth
        self._id: int = claim["integration_id"]
        self._begun = claim["started_at"]
        self._exports = claim["settings"].get("direction") in ("export", "both")
        self._go_on = go_on
        # The names of tags by their ids; None until somebody asks.
        self._tags: dict[str, str] | None = None
        self._since = time.monotonic()
        self._written: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.errors: list[dict[str, str]] = []

    @property
    def needs_state(self) -> bool:
        """Tell whether what is wanted there has to be read, whatever else is."""
        return self._exports

    async def page(self, devices: list[Record], *, with_state: bool) -> None:
        """Bring a page of devices together. Raises `CallFailed`, `FunctionError`, `TakenOver`."""
        facts = {str(one["id"]): await self._facts(one, with_state) for one in devices}
        answer = await self._agree(list(facts.values()))
        self.taken.update({name: answer[name] for name in _TAKEN})
        self.errors.extend(answer["refused"])
        written = []
        for wanted in answer["wanted"]:
            fact = facts[wanted["external_id"]]
            try:
                await self._write(wanted, fact)
            except CallFailed as failure:
                self._note(wanted["external_id"], failure.message)
                if failure.kind in HOPELESS:
                    raise
            written.append(fact)
            if len(written) % WRITES_A_LEASE == 0:
                await self._go_on()
        if written:
            # Asked again, it finds what is there now, and keeps it as agreed.
            await self._agree(written)

    async def log(self, error: str | None = None) -> None:
        """Write down what was written there, if anything was or should have been."""
        conflicts = self.taken["conflicts"]
        if not self._exports or not (self._written or self.errors or conflicts):
            return
        counts = dict(self._written) | {"conflicts": conflicts, "errors": len(self.errors)}
        report = {
            "counts": counts,
            "duration_ms": round((time.monotonic() - self._since) * 1000),
            "errors": self.errors[:WRITES_A_LEASE],
            "error": error,
        }
        await fetch_value(self._pool, _LOG, self._id, Jsonb(storable(report)))

    async def _agree(self, facts: list[dict[str, Any]]) -> dict[str, Any]:
        answer: dict[str, Any] | None = await fetch_value(
            self._pool, _AGREE, self._id, self._begun, Jsonb(storable(facts))
        )
        if answer is None:
            raise TakenOver
        return answer

    async def _facts(self, device: Record, with_state: bool) -> dict[str, Any]:
        tags = [await self._name_of(str(one)) for one in device.get("tagIds") or []]
        state = device.get("data")
        wanted = state.get(DESIRED) if isinstance(state, Mapping) else None
        updated = moment(device.get("updatedAt"))
        return {
            "external_id": str(device["id"]),
            "name": str(device.get("name") or "").strip() or None,
            "tags": [one for one in tags if one],
            # What was not read is not taken for empty.
            "desired": (wanted if isinstance(wanted, Mapping) else {}) if with_state else None,
            "updated_at": updated and updated.isoformat(),
        }

    async def _write(self, wanted: Mapping[str, Any], fact: dict[str, Any]) -> None:
        """Write what is wanted of a device, and into its facts what is there by then."""
        device = wanted["external_id"]
        added, removed = wanted.get("add_tags", []), wanted.get("remove_tags", [])
        if added or removed:
            changes = {
                "addTagId": [await self._id_of(one) for one in added],
                "removeTagId": [await self._id_of(one) for one in removed],
            }
            await self._golioth.change_device(device, {k: v for k, v in changes.items() if v})
            fact["tags"] = [one for one in fact["tags"] if one not in removed] + list(added)
            self._written["tags"] += 1
        for path, value in wanted["set"]:
            await self._golioth.set_state(device, path, value)
            _put(fact, path, value)
            self._written["values"] += 1
        for path in wanted["unset"]:
            await self._golioth.delete_state(device, path)
            _put(fact, path, None)
            self._written["values"] += 1
        # The one that may be refused because another device has it comes last.
        if "name" in wanted:
            await self._golioth.change_device(device, {"name": wanted["name"]})
            fact["name"] = wanted["name"]
            self._written["names"] += 1

    async def _name_of(self, tag: str) -> str | None:
        if self._tags is None:
            self._tags = await self._golioth.tags()
        return self._tags.get(tag)

    async def _id_of(self, name: str) -> str:
        if self._tags is None:
            self._tags = await self._golioth.tags()
        for number, known in self._tags.items():
            if known == name:
                return number
        number = await self._golioth.create_tag(name)
        self._tags[number] = name
        return number

    def _note(self, external_id: str, error: str) -> None:
        self.errors.append({"external_id": external_id, "error": error})


def _put(fact: dict[str, Any], path: str, value: Any) -> None:
    """Put a value into a tree, null for one that is gone."""
    *parents, leaf = path.split("/")
    tree = fact
    for name in parents:
        inner = tree.get(name)
        tree[name] = dict(inner) if isinstance(inner, Mapping) else {}
        tree = tree[name]
    tree[leaf] = value
