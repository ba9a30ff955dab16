"""Who may have how much under way: rules without a clock and without a database."""

from __future__ import annotations

import random

from pgfleet_functions.shares import MOST_REMEMBERED, Bounds, Shares

BOUNDS = Bounds(total=128, owner=4, way=2)


def begin(shares: Shares, owner: str, way: int) -> int:
    """Begin as much as there is room for, and tell how much that was."""
    left = shares.left()
    begun = max(
        0,
        min(
            left["all"],
            left["owners"].get(owner, left["owner"]),
            left["ways"].get(str(way), left["way"]),
        ),
    )
    for _ in range(begun):
        shares.take(owner, way)
    return begun


def test_everybody_begins_with_little() -> None:
    shares = Shares(BOUNDS)
    assert begin(shares, "a", 1) == 2
    assert begin(shares, "a", 1) == 0
    assert begin(shares, "a", 2) == 2
    assert begin(shares, "a", 3) == 0, "the owner holds four"
    assert begin(shares, "b", 4) == 2
    assert shares.is_tight


def test_answers_earn_more_and_one_that_does_not_come_takes_it_back() -> None:
    shares = Shares(BOUNDS)
    begin(shares, "a", 1)
    for _ in range(10):
        shares.give_back("a", 1, is_slow=False)
        begin(shares, "a", 1)
    assert begin(shares, "a", 2) == 2
    shares.give_back("a", 1, is_slow=True)
    assert begin(shares, "a", 1) == 0
    assert shares.left()["owners"]["a"] == 0


def answer(shares: Shares, owner: str, way: int, times: int = 1, *, is_slow: bool = False) -> None:
    """Let one after the other be answered."""
    for _ in range(times):
        shares.take(owner, way)
        shares.give_back(owner, way, is_slow=is_slow)


def test_what_was_earned_holds_for_those_who_answered_last() -> None:
    shares = Shares(BOUNDS)
    answer(shares, "a", 1)
    expected = {"all": 128, "owner": 4, "way": 2, "owners": {"a": 5}, "ways": {"1": 3}}
    assert shares.left() == expected
    assert not shares.is_tight
    for number in range(MOST_REMEMBERED):
        answer(shares, f"other-{number}", 100 + number)
    assert "a" not in shares.left()["owners"]
    assert len(shares.left()["owners"]) == len(shares.left()["ways"]) == MOST_REMEMBERED


def test_nobody_earns_more_than_a_quarter() -> None:
    shares = Shares(BOUNDS)
    answer(shares, "a", 1, 500)
    assert begin(shares, "a", 1) == BOUNDS.total // 4
    assert begin(shares, "a", 2) == 0


def test_nobody_holds_more_than_is_left_for_the_others() -> None:
    shares = Shares(BOUNDS)
    # Answers without end let one owner have very much, through very many ways.
    for round in range(400):
        begin(shares, "a", round % 40)
        if round % 3:
            shares.give_back("a", round % 40, is_slow=False)
    assert shares.left()["all"] >= BOUNDS.total * 3 // 4
    assert begin(shares, "b", 99) == 2


def test_those_who_earned_much_and_then_hang_leave_room_for_the_next() -> None:
    shares = Shares(BOUNDS)
    for owner in range(6):
        answer(shares, f"sleeper-{owner}", owner, 100)
    held = [begin(shares, f"sleeper-{owner}", owner) for owner in range(6)]
    assert held[0] == BOUNDS.total // 4
    assert begin(shares, "good", 99) >= 1


def test_owners_who_never_answer_leave_room_for_one_who_does() -> None:
    shares = Shares(BOUNDS)
    for owner in range(25):
        for way in range(25):
            begin(shares, f"bad-{owner}", owner * 100 + way)
    assert begin(shares, "good", 9999) == 2


def test_the_last_place_is_for_whoever_has_none() -> None:
    shares = Shares(Bounds(total=3, owner=9, way=9))
    assert begin(shares, "a", 1) == 2
    assert begin(shares, "a", 1) == 0
    assert begin(shares, "b", 2) == 1
    assert begin(shares, "c", 3) == 0
    shares.give_back("a", 1, is_slow=True)
    assert begin(shares, "c", 3) == 1


def test_what_is_given_back_is_there_again() -> None:
    shares, dice = Shares(BOUNDS), random.Random(7)
    held: list[tuple[str, int]] = []
    for _ in range(5000):
        if held and dice.random() < 0.5:
            owner, way = held.pop(dice.randrange(len(held)))
            shares.give_back(owner, way, is_slow=dice.random() < 0.2)
        else:
            owner, way = f"o{dice.randrange(9)}", dice.randrange(30)
            held += [(owner, way)] * begin(shares, owner, way)
        assert len(held) <= BOUNDS.total
    for owner, way in held:
        shares.give_back(owner, way, is_slow=False)
    assert shares.left()["all"] == BOUNDS.total
    assert not shares.is_tight
