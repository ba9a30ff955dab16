"""A device follows its fleet where its server proves it, and nobody else can send it anywhere."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgfleet.agent import credentials, state
from pgfleet.agent.credentials import Credentials
from pgfleet.agent.http import Moved
from pgfleet.agent.moves import followed, settings_of
from pgfleet.agent.settings import AgentSettings
from pgfleet.errors import Unavailable

HOME = Credentials(
    17, "5f0c", "pc-17", "device:5f0c", "pgfd_17_abc", "https://one", "https://one/f", "anon-1"
)
PLACE = {"device_id": 17, "url": "https://two", "functions_url": "https://two/f", "anon_key": "a2"}


def told(place: dict[str, Any], secret: str = HOME.device_secret) -> Moved:
    said = "\n".join(["pgfleet moved", *map(str, place.values())]).encode()
    key = hashlib.sha256(secret.encode()).digest()
    return Moved("moved", place, hmac.new(key, said, hashlib.sha256).hexdigest())


def test_a_signed_answer_is_followed_and_remembered(tmp_path: Path) -> None:
    found = followed(HOME, told(PLACE))
    assert (found.url, found.functions_url, found.anon_key) == (
        "https://two",
        "https://two/f",
        "a2",
    )
    assert (found.device_id, found.device_secret, found.left) == (
        17,
        HOME.device_secret,
        (HOME.url,),
    )
    state.prepare(tmp_path / "state")
    credentials.save(tmp_path / "state", found)
    assert credentials.load(tmp_path / "state") == found
    # What the service was started with says the old place for years to come.
    started = AgentSettings(url="https://one", anon_key="anon-1", state_dir=tmp_path, hostname="x")
    assert settings_of(found, started).url == "https://two"
    elsewhere = replace(started, url="https://three", functions_url="")
    assert settings_of(found, elsewhere).url == "https://three"


def test_a_fleet_that_comes_home_is_followed_home() -> None:
    away = followed(HOME, told(PLACE))
    back = followed(away, told({**PLACE, "url": HOME.url, "functions_url": HOME.functions_url}))
    assert (back.url, back.left) == (HOME.url, ("https://two",))


@pytest.mark.parametrize(
    "moved",
    [
        told(PLACE, "pgfd_17_guessed"),
        told({**PLACE, "device_id": 18}),
        Moved("moved", {**PLACE, "url": "https://evil"}, told(PLACE).signature),
        Moved("moved", PLACE, ""),
        Moved("moved", {}, told(PLACE).signature),
    ],
)
def test_what_is_not_signed_by_its_own_server_sends_it_nowhere(moved: Moved) -> None:
    with pytest.raises(Unavailable) as caught:
        followed(HOME, moved)
    assert caught.value.reason == "move_not_proven"
