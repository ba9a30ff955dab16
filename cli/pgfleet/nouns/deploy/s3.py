"""Bring the bytes of a file into a storage through its S3 door."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pgfleet.errors import InvalidInput, MissingExtra, Unavailable
from pgfleet.output import Progress

# As large as the pieces of the other way, so that what is cut costs no more.
_PIECE = 6 * 1024 * 1024
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Door:
    """Where an S3 API is, and the keys for it; without keys boto3 looks where it always does."""

    url: str
    bucket: str
    region: str
    key_id: str | None = None
    secret: str | None = field(default=None, repr=False)


def door() -> Door | None:
    """Give the door that the environment names, if it names one."""
    url = os.environ.get("PGFLEET_S3_URL")
    if not url:
        return None
    return Door(
        url.rstrip("/"),
        os.environ.get("PGFLEET_S3_BUCKET", "pgfleet"),
        os.environ.get("PGFLEET_S3_REGION", "us-east-1"),
        os.environ.get("PGFLEET_S3_KEY_ID"),
        os.environ.get("PGFLEET_S3_SECRET"),
    )


def upload(where: Door, name: str, path: Path, size: int, advance: Progress) -> None:
    """Upload a file under a name; what is large goes in pieces, each tried again by itself."""
    try:
        import boto3
        from boto3.exceptions import Boto3Error
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError as error:
        raise MissingExtra("s3", "uploading files through S3") from error
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        advance("uploading (MB)", done // _MEGABYTE, max(1, size // _MEGABYTE))

    client = boto3.client(
        "s3",
        endpoint_url=where.url,
        region_name=where.region,
        aws_access_key_id=where.key_id,
        aws_secret_access_key=where.secret,
        # Other makers know neither buckets as host names nor the newer checksums.
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"max_attempts": 8, "mode": "standard"},
        ),
    )
    try:
        client.upload_file(
            str(path),
            where.bucket,
            name,
            ExtraArgs={"ContentType": "application/octet-stream"},
            Callback=told,
            Config=TransferConfig(
                multipart_threshold=_PIECE, multipart_chunksize=_PIECE, use_threads=False
            ),
        )
    except (ClientError, Boto3Error) as error:
        raise InvalidInput(
            f"the storage refuses the file: {str(error)[:300]}",
            reason="storage_refused",
            hint="Check PGFLEET_S3_BUCKET and the keys: PGFLEET_S3_KEY_ID, PGFLEET_S3_SECRET.",
        ) from error
    except BotoCoreError as error:
        raise Unavailable(
            f"no answer from {where.url}: {str(error)[:300]}",
            reason="storage_unreachable",
            hint="Check PGFLEET_S3_URL.",
        ) from error
