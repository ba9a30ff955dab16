"""Which providers there are: a new one is a module like `nanomdm` and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from pgfleet_functions.integrations.connections import Kind
from pgfleet_functions.mdm.nanomdm import NanoMDM
from pgfleet_functions.mdm.provider import Provider
from pgfleet_functions.mdm.simplemdm import BASE_URL, SimpleMDM

PROVIDERS: Mapping[str, Kind[Provider]] = {
    "simplemdm": Kind(SimpleMDM, base_url=BASE_URL),
    "nanomdm": Kind(NanoMDM, user="nanomdm"),
}
