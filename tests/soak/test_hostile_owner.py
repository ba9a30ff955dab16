"""A good owner beside a hostile one, for twenty seconds and for three minutes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.functions.notify.conftest import receive
from tests.helpers.hostile_owner import at_its_worst, code_of, harm_done, live_beside

__all__ = ["receive"]


# Beside other tests everything takes longer; who is starved waits longer still.
BESIDE_OTHERS = 3


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("devices", "examples", "seconds", "slower"),
    [
        pytest.param(60, 30, 20, BESIDE_OTHERS, id="short"),
        pytest.param(400, 300, 180, 1, id="long", marks=pytest.mark.soak),
    ],
)
def test_a_good_owner_notices_nothing(
    stack: Any, receive: Any, devices: int, examples: int, seconds: int, slower: int
) -> None:
    with stack.connect(autocommit=True) as conn:
        conn.execute("select fleet.set_setting('webhook_allow_private', 'true')")
    with at_its_worst(stack, devices, examples) as hostile:
        seen = live_beside(stack, receive(), lambda owner: code_of(stack, owner), seconds)
        done = harm_done(stack, hostile)
    print(seen, done)
    assert all(done.values()), done
    assert len(seen.rows) * slower > seconds / 2, seen
    assert seen.late(99) < 1.5 * slower, seen
    assert max(seen.webhooks) < 5 * slower, seen
    assert max(seen.calls) < 5 * slower, seen
    assert max(seen.tokens) < 5 * slower, seen
