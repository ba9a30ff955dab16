"""What the function mdm-dispatch does when it is poked, each kind of work by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from pgfleet_functions.database import Pool
from pgfleet_functions.dispatching import Claiming, Dispatcher
from pgfleet_functions.integrations.connections import Connections
from pgfleet_functions.integrations.inventory import claim_syncs
from pgfleet_functions.mdm.catalogue import sync_profiles
from pgfleet_functions.mdm.commands import claim_commands
from pgfleet_functions.mdm.provider import Provider
from pgfleet_functions.mdm.providers import PROVIDERS
from pgfleet_functions.mdm.rereads import claim_rereads
from pgfleet_functions.mdm.uploads import claim_uploads
from pgfleet_functions.outgoing.transport import Outgoing
from pgfleet_functions.shares import Bounds

BOUNDS: Mapping[str, Bounds] = {
    "commands": Bounds(total=256, owner=8, way=4),
    "inventories": Bounds(total=32, owner=2, way=1),
    "rereads": Bounds(total=32, owner=4, way=2),
    "uploads": Bounds(total=16, owner=2, way=2),
}


def dispatchers(pool: Pool, outgoing: Outgoing, *, allow_private: bool) -> Sequence[Dispatcher]:
    """Return what hands over commands, reads inventories and devices, and uploads profiles."""
    connections: Connections[Provider] = Connections(
        pool, outgoing, PROVIDERS, allow_private=allow_private
    )
    claimings: Mapping[str, Claiming] = {
        "commands": partial(claim_commands, pool, connections),
        "inventories": partial(claim_syncs, pool, connections, partial(sync_profiles, pool)),
        "rereads": partial(claim_rereads, pool, connections),
        "uploads": partial(claim_uploads, pool, connections),
    }
    return [
        Dispatcher(f"mdm {name}", claiming, BOUNDS[name]) for name, claiming in claimings.items()
    ]
