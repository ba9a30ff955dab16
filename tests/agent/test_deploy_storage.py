"""Where a device fetches files from: addresses that the server signed for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from tests.helpers.small_s3 import small_s3

from pgfleet.agent.client import DeviceClient
from pgfleet.agent.storage import DeployServer
from pgfleet.errors import FleetError


class Client:
    """A server that says where the files are."""

    def __init__(self, *addresses: dict[str, str]) -> None:
        self.addresses = list(addresses)

    async def manifest(self, command_id: int) -> dict[str, Any]:
        return {"kind": "files", "addresses": self.addresses.pop(0)}


def fetch(client: Client, path: str, offset: int, tmp_path: Path) -> tuple[int, bytes]:
    server = DeployServer(cast(DeviceClient, client))

    async def run() -> tuple[int, bytes]:
        await server.manifest(5)
        async with server.open_object("pgfleet", path, offset) as body:
            return body.starts_at, b"".join([chunk async for chunk in body.chunks])

    return asyncio.run(run())


def test_a_file_comes_from_its_address_and_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    with small_s3("k") as store:
        store.objects["/b/o/1"] = content = bytes(range(256)) * 10
        client = Client(*({"o/1": f"{store.url}/b/o/1?X-Amz-Signature={n}"} for n in "ab"))
        assert fetch(client, "o/1", 0, tmp_path) == (0, content)
        assert fetch(client, "o/1", 100, tmp_path) == (100, content[100:])
    # The store refuses whoever brings a key of another storage along.
    assert store.read == [("/b/o/1", "a"), ("/b/o/1", "b")]


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "http://", "http://[", "/etc/passwd"])
def test_an_address_that_is_none_is_an_error_of_ours(url: str, tmp_path: Path) -> None:
    with pytest.raises(FleetError):
        fetch(Client({"o/1": url}), "o/1", 0, tmp_path)


def test_what_the_error_says_holds_no_signature(tmp_path: Path) -> None:
    with small_s3("k") as store:
        client = Client({"o/2": f"{store.url}/b/o/2?X-Amz-Signature=secret"})
        with pytest.raises(FleetError) as refused:
            fetch(client, "o/2", 0, tmp_path)
    assert "secret" not in str(refused.value)
