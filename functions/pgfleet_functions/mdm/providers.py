"""Which providers there are: a new one is a module like `nanomdm` and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pgfleet_functions.integrations.calls import Api
from pgfleet_functions.mdm.nanomdm import NanoMDM
from pgfleet_functions.mdm.provider import Provider
from pgfleet_functions.mdm.simplemdm import BASE_URL, SimpleMDM


@dataclass(frozen=True, slots=True)
class Kind:
    """How a provider is made, where it is by default, and the user name its key goes with."""

    make: Callable[[Api, Mapping[str, Any]], Provider]
    base_url: str | None = None
    user: str | None = None


PROVIDERS: Mapping[str, Kind] = {
    "simplemdm": Kind(SimpleMDM, base_url=BASE_URL),
    "nanomdm": Kind(NanoMDM, user="nanomdm"),
}
