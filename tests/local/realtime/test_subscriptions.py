"""Which transactions lie beyond the moment at which a subscription began."""

from __future__ import annotations

import re

import pytest

from pgfleet_local.realtime.filters import Filter, FilterError, parse_filters
from pgfleet_local.realtime.subscriptions import Horizon, bind


@pytest.mark.parametrize(
    ("xid", "beyond"), [(99, False), (100, True), (104, False), (105, True), (110, True)]
)
def test_a_transaction_counts_when_it_was_running_or_had_not_begun(xid: int, beyond: bool) -> None:
    assert Horizon.parse("100:105:100,102").did_not_see(xid) is beyond


def test_the_horizon_holds_when_transaction_numbers_wrap() -> None:
    wrap = 2**32
    horizon = Horizon.parse(f"{wrap - 3}:{wrap + 1}:{wrap - 3}")

    seen = [horizon.did_not_see(xid % wrap) for xid in (wrap - 3, wrap - 2, wrap, wrap + 1)]

    assert seen == [True, False, False, True]


def test_filters_are_split_at_commas_outside_quotes_and_lists() -> None:
    text = r'a=eq.1,b=in.(x,"y,\"z"),c=not.is.null'

    assert parse_filters(text) == (
        Filter("a", "eq", ("1",)),
        Filter("b", "in", (r'x,"y,\"z"',)),
        Filter("c", "is", ("null",), negated=True),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", '["a"]'),
        ("undefined", '["undefined"]'),
        ("a=1", '["1"]'),
        ("a=near.1", '["near","1"]'),
        (" a = eq.1", '[" eq","1"]'),
        ("a=in.1", "must be wrapped by parentheses"),
        ("a=in.(1", "must be wrapped by parentheses"),
        ("a=eq.1,", "must not contain empty segments"),
    ],
)
def test_filters_that_cannot_be_read_are_refused(text: str, reason: str) -> None:
    with pytest.raises(FilterError, match=re.escape(reason)):
        parse_filters(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('a=eq."x"', ["x"]),
        ('a=eq."x', ['"x']),
        ('a=eq.x"y"', ['x"y"']),
        (r'a=eq."x\"y"', ['x"y']),
        ("a=eq.(1", ["(1"]),
        ("a=eq.", [""]),
        ("a=eq.1.5", ["1.5"]),
        ("a=eq.x=y", ["x=y"]),
        ('a=eq.5"",b=eq.6', ['5""', "6"]),
        (" ", []),
    ],
)
def test_a_quote_that_is_not_around_a_whole_value_is_part_of_it(
    text: str, values: list[str]
) -> None:
    assert [one.values[0] for one in parse_filters(text)] == values


def test_equal_bindings_share_an_id_whatever_the_order_of_their_keys() -> None:
    first = bind({"event": "*", "schema": "public"})
    second = bind({"schema": "public", "event": "*"})

    assert first.id == second.id != bind({"event": "*", "schema": "api"}).id
