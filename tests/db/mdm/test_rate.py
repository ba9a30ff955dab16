"""The pace of an integration: calls are granted, stopped and slowed down."""

from __future__ import annotations

from datetime import timedelta
from typing import Any


def reserve(mdm: Any, seconds: float = 0, within: float = 0) -> dict[str, Any]:
    answer: dict[str, Any] = mdm.fleet.value(
        "select fleet.worker_reserve_call(%s, make_interval(secs => %s), false,"
        " '2030-01-01 00:00:00Z'::timestamptz + make_interval(secs => %s))",
        mdm.id,
        within,
        seconds,
    )
    return answer


def test_calls_are_granted_at_the_pace_of_the_settings(mdm: Any) -> None:
    granted = 0
    for tenth in range(101):
        while reserve(mdm, tenth / 10)["granted"]:
            granted += 1

    assert 200 <= granted <= 205
    assert 0 < reserve(mdm, 10)["wait"] <= 0.05


def test_calls_to_come_are_told_when_each_may_begin(mdm: Any) -> None:
    answers = [reserve(mdm, within=1) for _ in range(30)]

    # Five at once, then one every twentieth of a second, and none that would begin too late.
    assert [answer["granted"] for answer in answers] == [True] * 25 + [False] * 5
    waits = [round(float(answer["wait"]), 3) for answer in answers]
    assert waits[:25] == [0] * 5 + [round(0.05 * n, 3) for n in range(1, 21)]


def test_a_refusal_stops_everybody_and_slows_down_for_a_while(mdm: Any) -> None:
    learn = (
        "select fleet.worker_learn_rate(%s, null, '2030-01-01 00:00:30Z', '2030-01-01 00:00:00Z')"
    )
    reserve(mdm)
    assert mdm.fleet.value(learn, mdm.id)["rate"] < 20

    assert reserve(mdm, 29) == {"granted": False, "wait": 1.0}
    assert reserve(mdm, 31)["granted"] is True


def test_only_as_many_are_claimed_as_can_be_called(mdm: Any) -> None:
    for _ in range(40):
        mdm.install(mdm.device())

    began = mdm.now()
    assert len(mdm.claim(100, began)) == 5
    assert len(mdm.claim(100, began + timedelta(seconds=0.2))) == 4
