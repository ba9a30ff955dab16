"""Addresses in an S3 storage, as the official client signs them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import botocore.auth
import pytest
from botocore.config import Config
from psycopg.types.json import Jsonb
from tests.db.deployments.test_deployments import claimed, file

NOW = datetime(2031, 3, 3, 4, 5, 6, tzinfo=UTC)


class Clock(datetime):
    """A clock that stands, for the official client."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return NOW if tz else NOW.replace(tzinfo=None)

    @classmethod
    def utcnow(cls) -> Any:
        return NOW.replace(tzinfo=None)


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.eu-central-1.amazonaws.com",
        "http://127.0.0.1:9000",
        "https://abc.supabase.co/storage/v1/s3/",
    ],
)
def test_they_are_signed_as_the_official_client_signs_them(
    fleet: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{fleet.owner_id}/{'0f' * 32}"
    if hasattr(botocore.auth, "get_current_datetime"):
        monkeypatch.setattr(
            botocore.auth,
            "get_current_datetime",
            lambda remove_tzinfo=True: NOW.replace(tzinfo=None) if remove_tzinfo else NOW,
        )
    else:
        monkeypatch.setattr(botocore.auth.datetime, "datetime", Clock)
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="eu-central-1",
        aws_access_key_id="AKIA1",
        aws_secret_access_key="s/e+cret",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    wanted = client.generate_presigned_url(
        "get_object", Params={"Bucket": "files", "Key": path}, ExpiresIn=3600
    )
    ours = fleet.value(
        "select fleet.s3_address(%s, 'files', 'eu-central-1', 'AKIA1', 's/e+cret', %s, 3600, %s)",
        *(url, path, NOW),
    )
    assert parse_qs(urlsplit(ours).query) == parse_qs(urlsplit(wanted).query)
    assert urlsplit(ours)[:3] == urlsplit(wanted)[:3]


def setting(fleet: Any, name: str, value: Any) -> None:
    fleet.value("select fleet.set_setting(%s, %s)", name, Jsonb(value))


def test_a_device_is_given_them_where_the_files_are_in_such_a_storage(fleet: Any) -> None:
    device, one = fleet.device(), file(fleet)
    fleet.create(
        action_type="deploy_files",
        device_ids=[device],
        payload={"file_ids": [one], "target_path": "/x"},
    )
    command = claimed(fleet, device)["command_id"]
    ask = "select deployment_manifest(%s)"
    with fleet.as_device(device):
        assert "addresses" not in fleet.value(ask, command)
    setting(fleet, "files_s3_url", "https://s3.example.com")
    setting(fleet, "files_s3_bucket", "files")
    setting(fleet, "files_s3_key_id", "AKIA1")
    with fleet.as_device(device), fleet.refused("PT500", "storage_key_missing"):
        fleet.value(ask, command)
    fleet.run("insert into pg_cron_secrets (name, secret) values ('pgfleet_files_s3', 'not told')")
    with fleet.as_device(device):
        manifest = fleet.value(ask, command)
    path = manifest["files"][0]["path"]
    (told,) = manifest["addresses"].items()
    assert told[0] == path
    assert told[1].startswith(f"https://s3.example.com/files/{path}?X-Amz-Algorithm=")
    assert "not told" not in str(manifest)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("files_s3_url", "ftp://x"),
        ("files_s3_url", "https://x/?a=b"),
        ("files_s3_url", 5),
        ("files_s3_bucket", None),
        ("files_s3_bucket", "a/b"),
        ("files_s3_region", "eu central"),
        ("files_s3_key_id", "a&b"),
    ],
)
def test_what_such_a_storage_cannot_be_is_refused(fleet: Any, name: str, value: Any) -> None:
    with fleet.refused("PT422", "setting_invalid"):
        setting(fleet, name, value)
