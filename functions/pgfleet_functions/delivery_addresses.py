"""Where a webhook may connect to: the addresses behind a name, looked at before they are used."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Of IPv6 only what is given out to the public, without the forms that carry an IPv4 address.
_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")
_CARRIERS = tuple(ipaddress.IPv6Network(text) for text in ("2001::/23", "2002::/16"))
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
_RELAYS = ipaddress.IPv4Network("192.88.99.0/24")


class AddressRefused(Exception):
    """A host stands for an address that is not open to everybody; the message says which."""


class AddressUnknown(Exception):
    """A host stands for no address at the moment."""


def is_public(address: Address) -> bool:
    """Tell whether an address is neither private, loopback, link-local, multicast nor reserved."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _TRANSLATED:
            # A network without IPv4 reaches it through this prefix.
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GIVEN_OUT or any(address in network for network in _CARRIERS):
            return False
    elif address in _RELAYS:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def addresses_of(host: str, port: int, *, allow_private: bool) -> list[str]:
    """Resolve a host, for the caller to connect to just these addresses and no others.

    One private address among them refuses the host: whoever answers for its name may change
    the answer from one question to the next.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressUnknown(f"the host {host} has no address: {error}") from error
    # Of a link-local address the interface follows a percent sign.
    addresses = list(dict.fromkeys(str(known[4][0]).partition("%")[0] for known in found))
    if not allow_private:
        for text in addresses:
            if not is_public(ipaddress.ip_address(text)):
                raise AddressRefused(f"the host {host} stands for the private address {text}")
    return addresses
