"""The steps of the tick: what each of them must be, and what is told of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet

BASE = datetime(2031, 1, 1, tzinfo=UTC)


def test_the_error_of_a_step_is_remembered_while_others_fail(fleet: Fleet) -> None:
    first = [{"name": "a", "ms": 1, "error": "x"}, {"name": "b", "ms": 1, "error": None}]
    second = [{"name": "b", "ms": 2, "error": "y"}, {"name": "a", "ms": 2, "error": None}]
    remember = "select fleet.remembered_steps(%s, %s, %s)"
    before = fleet.value(remember, Jsonb([]), Jsonb(first), BASE)
    after = fleet.value(remember, Jsonb(before), Jsonb(second), BASE + timedelta(seconds=1))
    told = [(step["name"], step["ms"], step["error"], step["error_at"]) for step in after]
    assert told == [
        ("b", 2, "y", (BASE + timedelta(seconds=1)).isoformat()),
        ("a", 2, "x", BASE.isoformat()),
    ]


def test_each_step_of_the_tick_is_a_function_of_the_time(fleet: Fleet) -> None:
    steps = fleet.rows(
        "select s.function, pg_get_function_identity_arguments(p.oid) as takes"
        " from fleet.tick_steps() as s"
        " left join pg_proc as p on p.oid = to_regproc('fleet.' || s.function)"
    )
    assert len({step["function"] for step in steps}) == len(steps)
    for step in steps:
        first, *rest = step["takes"].split(", ")
        assert first == "p_now timestamp with time zone", step
        assert fleet.value(
            "select pronargs - pronargdefaults <= 1 from pg_proc where oid = to_regproc(%s)",
            f"fleet.{step['function']}",
        ), rest


@pytest.mark.parametrize(
    ("answer", "figure", "batch", "said"),
    [
        ({"commands": 3, "more": True}, None, None, {"commands": 3, "more": True}),
        (3, "swept", None, {"swept": 3}),
        (3, "swept", 3, {"swept": 3, "more": True}),
        ([7, 8], "runs", 3, {"runs": 2}),
        ([7, 8, 9], "runs", 3, {"runs": 3, "more": True}),
        (True, None, None, {}),
        (None, "swept", 3, {"swept": 0}),
    ],
)
def test_what_a_step_answers_is_told_as_figures(
    fleet: Fleet, answer: Any, figure: str | None, batch: int | None, said: dict[str, Any]
) -> None:
    found = fleet.value("select fleet.step_outcome(%s, %s, %s)", Jsonb(answer), figure, batch)
    assert found == said
