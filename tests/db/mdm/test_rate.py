"""The pace of an integration: calls are granted, stopped and slowed down."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.helpers.mdm import Mdm

BEGAN = datetime.fromisoformat("2030-01-01T00:00:00Z")


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


class Provider:
    """An MDM that lets so many calls a second through, measured over ten seconds."""

    def __init__(self, limit: float, *, tells: bool) -> None:
        self.limit, self.tells = limit, tells
        self.passed: deque[float] = deque()
        self.answers: list[int] = []

    def call(self, at: float) -> float | None:
        """Answer; give after how many seconds to come back where it was too much."""
        while self.passed and self.passed[0] <= at - 10:
            self.passed.popleft()
        if len(self.passed) < self.limit * 10.5:
            self.passed.append(at)
            self.answers.append(200)
            return None
        self.answers.append(429)
        return max(1.0, self.passed[0] + 10 - at) if self.tells else 2.0

    @property
    def refused(self) -> float:
        return self.answers.count(429) / len(self.answers)


def play(mdm: Mdm, provider: Provider, seconds: float, hands: int = 1, begin: float = 0) -> None:
    """Call a provider as fast as the bucket lets several hands at once."""
    at = begin
    while at < begin + seconds:
        leaves = [
            mdm.fleet.value(
                "select fleet.worker_reserve_call(%s, '1 minute', false, %s)",
                *(mdm.id, BEGAN + timedelta(seconds=at)),
            )
            for _ in range(hands)
        ]
        for leave in leaves:
            reset = provider.call(at + float(leave["wait"]))
            if reset is not None:
                mdm.fleet.run(
                    "select fleet.worker_learn_rate(%s, null, %s, %s)",
                    *(mdm.id, BEGAN + timedelta(seconds=at + float(leave["wait"]) + reset)),
                    BEGAN + timedelta(seconds=at + float(leave["wait"])),
                )
        at = max(at + 0.01, at + float(leaves[-1]["wait"]))


def settle_at(mdm: Mdm, rate: float) -> None:
    mdm.fleet.run(
        "update device_integrations set settings = jsonb_build_object('rate_per_second', %s)", rate
    )


@pytest.mark.parametrize(
    ("ceiling", "tells", "hands"), [(1.2, True, 1), (5, False, 2), (40, True, 3)]
)
def test_of_ten_minutes_at_a_limit_of_one_a_second_next_to_nothing_is_refused(
    mdm: Mdm, ceiling: float, tells: bool, hands: int
) -> None:
    settle_at(mdm, ceiling)
    provider = Provider(1, tells=tells)
    play(mdm, provider, 600, hands)

    assert provider.refused <= 0.02
    # And the limit is made use of.
    assert provider.answers.count(200) >= 380


def test_a_limit_that_is_lifted_is_noticed(mdm: Mdm) -> None:
    settle_at(mdm, 5)
    provider = Provider(1, tells=True)
    play(mdm, provider, 60)
    provider.limit = 100
    query = "select rate from fleet.rate_limits"
    held: float = mdm.fleet.value(query)
    for minute in range(1, 40):
        play(mdm, provider, 1, begin=60 * minute)

    assert held < 1.5
    assert mdm.fleet.value(query) == 5


def test_a_minute_in_which_all_is_refused_is_soon_made_up_for(mdm: Mdm) -> None:
    # Others have used up what all keys of one account share.
    settle_at(mdm, 20)
    provider = Provider(0, tells=False)
    play(mdm, provider, 60)
    query = "select rate from fleet.rate_limits"
    held: float = mdm.fleet.value(query)
    provider.limit = 100
    play(mdm, provider, 420, begin=60)

    assert held < 1
    assert mdm.fleet.value(query) >= 10
    assert provider.answers[-1000:].count(200) == 1000


def test_what_is_refused_together_is_one_refusal(mdm: Any) -> None:
    learn = "select fleet.worker_learn_rate(%s, null, null, %s) ->> 'rate'"
    reserve(mdm)
    rates = [
        mdm.fleet.value(learn, mdm.id, BEGAN + timedelta(seconds=one / 10)) for one in range(8)
    ]
    assert set(rates) == {"6.000"}


def test_a_refusal_empties_the_bucket_and_a_slower_pace_has_a_smaller_burst(mdm: Any) -> None:
    settle_at(mdm, 40)
    reserve(mdm)
    mdm.fleet.value(
        "select fleet.worker_learn_rate(%s, null, %s, %s)",
        *(mdm.id, BEGAN + timedelta(seconds=1), BEGAN),
    )

    assert [reserve(mdm, 1)["granted"], reserve(mdm, 1.2)["granted"]] == [False, True]
    burst = 0
    while reserve(mdm, 2)["granted"]:
        burst += 1
    assert 2 <= burst <= 4


def test_one_endpoint_with_a_limit_of_its_own_slows_down_no_other(mdm: Any) -> None:
    def ask(endpoint: str, seconds: float, is_prepaid: bool = False) -> bool:
        answer = mdm.fleet.value(
            "select fleet.worker_reserve_call(%s, '0', false, %s, %s, %s)",
            *(mdm.id, BEGAN + timedelta(seconds=seconds), endpoint, is_prepaid),
        )
        return bool(answer["granted"])

    assert ask("refresh", 0)
    learn = "select fleet.worker_learn_rate(%s, null, %s, %s, 'refresh')"
    mdm.fleet.value(learn, mdm.id, BEGAN + timedelta(seconds=30), BEGAN)

    assert not ask("refresh", 20) and not ask("refresh", 20, is_prepaid=True)
    assert ask("", 20) and ask("sync_profiles", 20)
    assert ask("refresh", 31)
    rates = mdm.fleet.rows("select endpoint, rate from fleet.rate_limits order by endpoint")
    assert [(row["endpoint"], row["rate"] < 20) for row in rates] == [
        ("", False),
        ("refresh", True),
    ]


def test_only_as_many_are_claimed_as_can_be_called(mdm: Any) -> None:
    for _ in range(40):
        mdm.install(mdm.device())

    began = mdm.now()
    assert len(mdm.claim(100, began)) == 5
    assert len(mdm.claim(100, began + timedelta(seconds=0.2))) == 4
