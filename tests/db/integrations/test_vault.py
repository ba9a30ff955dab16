"""Secrets in the vault of Supabase, where a project has it: as good as those of pg_cron_secrets."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import psycopg
import pytest


@pytest.fixture
def integration(db: Any) -> int:
    """Make a Golioth integration without a secret."""
    owner = str(uuid4())
    db.execute("insert into owners (id, name) values (%s, 'school')", (owner,))
    spec = {
        "name": "cloud",
        "integration_type": "golioth",
        "owner_id": owner,
        "settings": {"projectId": "acme"},
    }
    (made,) = db.execute("select id from create_integration(%s)", (json.dumps(spec),)).fetchone()
    return int(made)


def in_vault(db: Any, integration: int, secret: str) -> None:
    name = f"integration:{integration}"
    db.execute("select vault.create_secret(%s, %s)", (secret, name))


def test_a_secret_in_the_vault_is_found_and_used(db: Any, integration: int) -> None:
    with pytest.raises(psycopg.Error, match="has no secret"), db.transaction():
        db.execute("select sync_integration(%s)", (integration,))
    in_vault(db, integration, "key-of-the-vault")

    db.execute("select sync_integration(%s)", (integration,))
    (claim,) = db.execute("select fleet.worker_claim_golioth_syncs()").fetchone()

    assert claim["secret"] == "key-of-the-vault"
    (status,) = db.execute("select sync_status(%s)", (integration,)).fetchone()
    assert status["has_secret"]


def test_what_is_in_pg_cron_secrets_comes_first(db: Any, integration: int) -> None:
    in_vault(db, integration, "older")
    db.execute("select set_integration_secret(%s, 'newer')", (integration,))

    db.execute("select sync_integration(%s)", (integration,))
    (claim,) = db.execute("select fleet.worker_claim_golioth_syncs()").fetchone()

    assert claim["secret"] == "newer"


def test_a_secret_of_the_vault_is_in_no_log(db: Any, integration: int) -> None:
    in_vault(db, integration, "key-of-the-vault")
    db.execute("select sync_integration(%s)", (integration,))
    (claim,) = db.execute("select fleet.worker_claim_golioth_syncs()").fetchone()
    error = "401 for key-of-the-vault"
    report = {"error": error, "errors": [{"external_id": "1", "error": error}]}
    db.execute(
        "select fleet.worker_end_golioth_sync(%s, %s, %s)",
        (integration, claim["started_at"], json.dumps(report)),
    )

    (row,) = db.execute(
        "select to_jsonb(a) from integration_activity_log as a where integration_id = %s",
        (integration,),
    ).fetchone()

    assert "key-of-the-vault" not in json.dumps(row)
    assert row["error"].startswith("401 for ")
