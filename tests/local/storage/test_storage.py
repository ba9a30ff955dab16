"""The storage of the local platform, by the official client and by TUS."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import jwt
import psycopg
import pytest
from storage3 import SyncStorageClient
from storage3.exceptions import StorageApiError


@pytest.fixture(scope="module")
def http(stack: Any) -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as made:
        yield made


def client(http: httpx.Client, stack: Any, token: str) -> SyncStorageClient:
    headers = {"apikey": stack.settings.anon_key, "Authorization": f"Bearer {token}"}
    return SyncStorageClient(f"{stack.settings.api_url}/storage/v1/", headers, http_client=http)


@pytest.fixture(scope="module")
def service(http: httpx.Client, stack: Any) -> SyncStorageClient:
    return client(http, stack, stack.settings.service_role_key)


@pytest.fixture(scope="module")
def bucket(service: SyncStorageClient) -> str:
    name = f"bucket-{uuid4().hex[:8]}"
    assert service.create_bucket(name)["name"] == name
    return name


def person(stack: Any, sub: str) -> str:
    claims = {"role": "authenticated", "sub": sub, "exp": 4_000_000_000}
    return jwt.encode(claims, stack.settings.jwt_secret, algorithm="HS256")


def test_objects_come_back_as_they_were(service: SyncStorageClient, bucket: str) -> None:
    files = service.from_(bucket)
    content = os.urandom(300_000)
    files.upload("a/one.bin", content, {"content-type": "application/x-one"})
    assert files.download("a/one.bin") == content
    found = files.info("a/one.bin")
    assert (found["size"], found["content_type"]) == (300_000, "application/x-one")
    assert files.exists("a/one.bin") and not files.exists("a/two.bin")
    assert [one["name"] for one in files.list("a")] == ["one.bin"]
    assert [(one["name"], one["id"]) for one in files.list()] == [("a", None)]


def test_what_is_there_is_replaced_only_when_asked(service: SyncStorageClient, bucket: str) -> None:
    files = service.from_(bucket)
    files.upload("b.txt", b"one")
    with pytest.raises(StorageApiError) as refused:
        files.upload("b.txt", b"two")
    assert (refused.value.status, refused.value.code) == ("409", "Duplicate")
    files.upload("b.txt", b"three", {"upsert": "true"})
    files.update("b.txt", b"four")
    assert files.download("b.txt") == b"four"


def test_objects_are_moved_copied_and_removed(service: SyncStorageClient, bucket: str) -> None:
    files = service.from_(bucket)
    files.upload("c/1", b"c")
    files.copy("c/1", "c/2")
    files.move("c/1", "c/3")
    assert [one["name"] for one in files.list("c")] == ["2", "3"]
    assert {one["name"] for one in files.remove(["c/2", "c/3"])} == {"c/2", "c/3"}
    assert files.list("c") == []


def test_an_address_stands_for_one_object_for_a_while(
    http: httpx.Client, service: SyncStorageClient, bucket: str
) -> None:
    files = service.from_(bucket)
    content = bytes(range(256)) * 40
    files.upload("d/file name.bin", content)
    files.upload("d/other", b"secret")
    url = files.create_signed_url("d/file name.bin", 60)["signedURL"]
    assert http.get(url).content == content
    part = http.get(url, headers={"Range": "bytes=100-"})
    assert part.status_code == 206
    assert part.headers["content-range"] == "bytes 100-10239/10240"
    assert part.content == content[100:]
    assert http.get(url, headers={"Range": "bytes=20000-"}).status_code == 416
    assert http.get(url.replace("file%20name.bin", "other")).status_code == 400
    assert http.get(f"{url[:-3]}abc").status_code == 400
    with pytest.raises(StorageApiError):
        files.create_signed_url("d/nothing", 60)
    several = files.create_signed_urls(["d/other", "d/nothing"], 60)
    assert [one["error"] is None for one in several] == [True, False]


def test_an_address_lets_one_object_be_uploaded(service: SyncStorageClient, bucket: str) -> None:
    files = service.from_(bucket)
    signed = files.create_signed_upload_url("e/up")
    files.upload_to_signed_url("e/up", signed["token"], b"up")
    assert files.download("e/up") == b"up"
    with pytest.raises(StorageApiError):
        files.upload_to_signed_url("e/else", signed["token"], b"up")


@pytest.mark.parametrize("name", ["../up", "a/../../b", "a//b", "a/./b", "/", "a/\x01"])
def test_names_never_lead_out_of_a_bucket(
    http: httpx.Client, stack: Any, bucket: str, name: str
) -> None:
    key = stack.settings.service_role_key
    address = f"{stack.settings.api_url}/storage/v1/object/{bucket}/"
    raw = httpx.URL(address + "x").copy_with(
        raw_path=f"/storage/v1/object/{bucket}/".encode()
        + b"".join(b"%%%02x" % byte for byte in name.encode())
    )
    answer = http.post(raw, content=b"x", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 400, answer.text


def test_row_security_decides_who_reads_and_writes(
    http: httpx.Client, stack: Any, service: SyncStorageClient
) -> None:
    owner, content = str(uuid4()), b"mine"
    mine = client(http, stack, person(stack, owner)).from_("pgfleet")
    theirs = client(http, stack, person(stack, str(uuid4()))).from_("pgfleet")
    name = f"{owner}/{hashlib.sha256(content).hexdigest()}"
    mine.upload(name, content)
    assert mine.download(name) == content
    for refused in (
        lambda: theirs.download(name),
        lambda: theirs.create_signed_url(name, 60),
        lambda: theirs.upload(name, b"evil", {"upsert": "true"}),
        lambda: mine.upload(f"{owner}/notes.txt", b"no hash"),
        lambda: client(http, stack, "x").from_("pgfleet").download(name),
        lambda: client(http, stack, stack.settings.anon_key).from_("pgfleet").download(name),
    ):
        with pytest.raises(StorageApiError):
            refused()
    assert theirs.remove([name]) == []
    assert theirs.list(owner) == []
    assert service.from_("pgfleet").download(name) == content


def test_a_large_object_is_uploaded_piece_by_piece_and_goes_on_where_it_was_cut(
    http: httpx.Client, stack: Any, service: SyncStorageClient, bucket: str
) -> None:
    content = os.urandom(2_000_000)
    base = f"{stack.settings.api_url}/storage/v1/upload/resumable"
    who = {"Authorization": f"Bearer {stack.settings.service_role_key}", "Tus-Resumable": "1.0.0"}
    said = {"bucketName": bucket, "objectName": "large.bin", "contentType": "application/x-large"}
    metadata = ",".join(f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in said.items())
    begun = http.post(
        base,
        headers={**who, "Upload-Length": str(len(content)), "Upload-Metadata": metadata},
    )
    assert begun.status_code == 201, begun.text
    url = begun.headers["location"]

    def append(start: int, piece: bytes) -> httpx.Response:
        kind = "application/offset+octet-stream"
        headers = {**who, "Upload-Offset": str(start), "Content-Type": kind}
        return http.patch(url, content=piece, headers=headers)

    assert append(0, content[:900_000]).headers["upload-offset"] == "900000"
    assert append(0, content[:10]).status_code == 409
    assert http.head(url, headers=who).headers["upload-offset"] == "900000"
    assert http.head(url, headers={"Authorization": "Bearer x"}).status_code == 403
    assert append(900_000, content[900_000:]).status_code == 204
    assert service.from_(bucket).download("large.bin") == content


def test_buckets_are_listed_emptied_and_deleted(service: SyncStorageClient) -> None:
    name = f"bucket-{uuid4().hex[:8]}"
    service.create_bucket(name, options={"public": True, "file_size_limit": 3})
    assert service.get_bucket(name).public
    with pytest.raises(StorageApiError) as refused:
        service.from_(name).upload("x", b"four")
    assert refused.value.status == "413"
    service.from_(name).upload("x", b"3")
    with pytest.raises(StorageApiError):
        service.delete_bucket(name)
    service.empty_bucket(name)
    service.delete_bucket(name)
    assert name not in [one.id for one in service.list_buckets()]


def test_postgres_makes_policies_on_objects_and_nothing_else(stack: Any) -> None:
    with psycopg.connect(stack.settings.db_url) as conn:
        conn.execute("create policy p on storage.objects for select to anon using (false)")
        conn.execute("drop policy p on storage.objects")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("alter table storage.objects add column x int")
        conn.rollback()
