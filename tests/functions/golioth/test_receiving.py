"""Messages wait together for the statement before; whoever floods an address keeps nobody out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgfleet_functions.errors import FunctionError
from pgfleet_functions.golioth import receiving
from pgfleet_functions.golioth.receiving import Receiving


def test_one_address_takes_not_all_of_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MOST_OF_ONE", 3)

    async def slow(_: Any, __: str, messages: Any) -> list[str]:
        await asyncio.sleep(0.05)
        return ["stored"] * len(messages.obj)

    monkeypatch.setattr(receiving, "fetch_value", slow)

    async def flood() -> list[Any]:
        makes: Any = Receiving(None, lambda: None)  # type: ignore[arg-type]
        async with makes.running():
            first = await asyncio.gather(
                *(makes.receive({"token": name}) for name in ("a", "a", "a", "a", "b")),
                return_exceptions=True,
            )
            # As soon as they are answered there is room again.
            return [*first, await makes.receive({"token": "a"})]

    *stored, refused, other, again = asyncio.run(flood())

    assert (stored, other, again) == (["stored"] * 3, "stored", "stored")
    assert isinstance(refused, FunctionError)
    assert (refused.status_code, refused.details) == (503, "webhook_overload")
