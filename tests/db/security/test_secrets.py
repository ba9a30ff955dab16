"""Secrets stay where they belong: never in clear, never with who need not know them."""

from __future__ import annotations

import re
from typing import Any

import pytest

CALLERS = ("anon", "nobody", "member", "device", "fleet_worker")
NOW = "timestamptz '2026-03-01 12:00:00+00'"


def places_of(conn: Any, text: str) -> list[str]:
    """Name every table of the database in which a row contains the text."""
    tables = conn.execute(
        "select c.oid::regclass::text from pg_class as c"
        " where c.relkind = 'r' and c.relnamespace::regnamespace::text"
        " not in ('pg_catalog', 'information_schema', 'pg_toast')"
    ).fetchall()
    found = []
    for (table,) in tables:
        row = conn.execute(
            f"select 1 from {table} as t where strpos(t::text, %s) > 0 limit 1", (text,)
        ).fetchone()
        if row:
            found.append(table)
    return found


def admin(world: Any) -> Any:
    return world.acting("service_role")


def test_codes_and_device_secrets_are_stored_nowhere_in_clear(one_world: Any) -> None:
    mine = one_world.mine
    assert len(mine.plain_code) == 32
    with admin(one_world) as conn:
        conn.execute("reset role")
        for secret in (
            mine.plain_code,
            mine.plain_token,
            mine.plain_webhook_token,
            *mine.plain_secrets,
        ):
            random_part = secret.split("_")[-1]
            assert len(random_part) >= 32
            assert places_of(conn, random_part) == []
            assert places_of(conn, random_part.lower()) == []


def test_the_poke_key_is_in_one_table_only_and_a_poke_does_not_carry_it(one_world: Any) -> None:
    with admin(one_world) as conn:
        conn.execute("reset role")
        conn.execute("select fleet.set_setting('functions_url', '\"http://127.0.0.1:9/f\"')")
        assert one_world.outcome(conn, "select fleet.poke('mdm-dispatch')") is not None
        key = conn.execute(
            "select secret from public.pg_cron_secrets where name = 'poke_signing_key'"
        ).fetchone()[0]
        assert len(key) == 64
        assert places_of(conn, key) == ["pg_cron_secrets"]


@pytest.mark.parametrize("caller", CALLERS)
def test_the_secrets_are_readable_by_the_service_role_only(one_world: Any, caller: str) -> None:
    query = "select secret from public.pg_cron_secrets where name = 'poke_signing_key'"
    with one_world.acting(caller) as conn:
        assert one_world.outcome(conn, query)[0] == "42501"
    with one_world.acting("service_role") as conn:
        assert len(one_world.outcome(conn, query)) == 64


def test_no_setting_is_a_secret(one_world: Any) -> None:
    with admin(one_world) as conn:
        conn.execute("reset role")
        names = conn.execute("select name from fleet.default_settings()").fetchall()
    # That is the name of a key, which stands in every signed address; the key is in the secrets.
    found = {name for (name,) in names if "secret" in name or "key" in name}
    assert found == {"files_s3_key_id"}


def test_no_job_carries_a_secret(one_world: Any) -> None:
    with admin(one_world) as conn:
        conn.execute("reset role")
        commands = conn.execute("select command from fleet.jobs()").fetchall()
    assert all(
        re.fullmatch(r"(call|select) fleet\.[a-z_]+\(\)", command) for (command,) in commands
    )


def verdict(world: Any, token: str, function: str, body: str, later: int) -> Any:
    with world.acting("fleet_worker") as conn:
        return world.outcome(
            conn,
            f"select fleet.worker_verify_poke(%s, %s, %s, {NOW} + make_interval(secs => %s))",
            token,
            function,
            body,
            later,
        )


@pytest.fixture(scope="module")
def token(one_world: Any) -> str:
    with admin(one_world) as conn:
        conn.execute("reset role")
        return str(
            one_world.outcome(conn, f"select fleet.sign_poke('notify', '{{\"a\": 1}}', {NOW})")
        )


@pytest.mark.parametrize(
    ("function", "body", "later", "good"),
    [
        ("notify", '{"a": 1}', 0, True),
        ("notify", '{"a": 1}', 59, True),
        ("notify", '{"a": 1}', 61, False),
        ("notify", '{"a": 1}', -90, False),
        ("notify", '{"a": 2}', 0, False),
        ("notify", "", 0, False),
        ("enroll", '{"a": 1}', 0, False),
        ("", '{"a": 1}', 0, False),
        (None, '{"a": 1}', 0, False),
        ("notify", None, 0, False),
    ],
)
def test_a_poke_is_good_for_its_function_its_body_and_its_minute(
    one_world: Any, token: str, function: str, body: str, later: int, good: bool
) -> None:
    assert verdict(one_world, token, function, body, later) is good


@pytest.mark.parametrize("change", ["later", "other signature", "cut", "empty", "null", "none"])
def test_a_poke_that_was_changed_is_no_good(one_world: Any, token: str, change: str) -> None:
    kind, expires, signature = token.split(".")
    changed = {
        "later": f"{kind}.{int(expires) + 30}.{signature}",
        "other signature": f"{kind}.{expires}.{'A' * 43}",
        "cut": token[:-1],
        "empty": "",
        "null": None,
        "none": f"none.{expires}.{signature}",
    }[change]
    assert verdict(one_world, changed, "notify", '{"a": 1}', 0) is False


def test_a_former_secret_and_a_used_code_are_worth_nothing(one_world: Any) -> None:
    mine = one_world.mine
    with one_world.acting("fleet_worker") as conn:
        retired = one_world.outcome(
            conn, "select fleet.worker_device_token(%s)", mine.plain_secrets[2]
        )
        active = one_world.outcome(
            conn, "select fleet.worker_device_token(%s)", mine.plain_secrets[0]
        )
        other = one_world.outcome(
            conn,
            "select fleet.worker_device_token(%s)",
            mine.plain_secrets[0].replace(f"pgfd_{mine.device}_", f"pgfd_{mine.sibling}_"),
        )
    assert retired[:1] == other[:1] == ("PT401",)
    assert active["device_id"] == mine.device
    assert "secret" not in str(active)


def test_a_code_works_as_often_as_it_says_and_not_after_its_end(one_world: Any) -> None:
    enrol = "select fleet.worker_enroll_device(%s, %s, '{}', now() + %s::interval) -> 'device_id'"
    with one_world.acting("member") as conn:
        once = one_world.outcome(conn, "select public.create_enrollment_code() ->> 'code'")
        revoked = one_world.outcome(conn, "select public.create_enrollment_code()")
        conn.execute("select public.revoke_enrollment_code(%s)", (revoked["id"],))
        late = one_world.outcome(conn, "select public.create_enrollment_code() ->> 'code'")
        conn.execute("reset role")
        conn.execute("select set_config('request.jwt.claims', '', true)")
        answers = [
            one_world.outcome(conn, enrol, code, name, after)
            for code, name, after in [
                (once, "a", "0"),
                (once, "b", "0"),
                (revoked["code"], "c", "0"),
                (late, "d", "2 days"),
                ("", "e", "0"),
                (None, "f", "0"),
            ]
        ]
    assert isinstance(answers[0], int)
    refused = {answer[:3] for answer in answers[1:]}
    assert len(refused) == 1, "each refusal reads the same"
    assert refused.pop()[0] == "PT401"
