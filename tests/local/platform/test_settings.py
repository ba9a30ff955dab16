"""Reading the settings of the local platform, and finding Postgres."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest

from pgfleet_local.server.binaries import BinariesError, find_binaries
from pgfleet_local.settings import SettingsError, StackSettings, default_data_dir


def read(folder: Path, **env: str) -> StackSettings:
    names = {f"PGFLEET_LOCAL_{name.upper()}": value for name, value in env.items()}
    return StackSettings.from_environment({"PGFLEET_LOCAL_DATA_DIR": str(folder), **names})


def test_the_official_local_ports_are_the_default(tmp_path: Path) -> None:
    settings = read(tmp_path)

    assert settings.api_url == "http://127.0.0.1:54321"
    assert settings.db_url == "postgresql://postgres:postgres@127.0.0.1:54322/postgres"


def test_secrets_are_made_once_and_kept_for_the_owner_only(tmp_path: Path) -> None:
    first, second = read(tmp_path / "new"), read(tmp_path / "new")
    file = tmp_path / "new" / "secrets.json"

    assert first == second
    assert first.jwt_secret != read(tmp_path / "other").jwt_secret
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["secrets.json"]


def test_secrets_do_not_show_in_a_representation(tmp_path: Path) -> None:
    settings = read(tmp_path)

    assert settings.jwt_secret not in repr(settings)
    assert settings.password_seed not in repr(settings)


def test_a_child_process_reads_the_same_settings(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        api_port="1000",
        db_port="1001",
        default_privileges="old",
        net_pace="on",
        durable="off",
        jwks='{"keys": []}',
    )

    assert StackSettings.from_environment(settings.environment()) == settings


def test_only_postgres_has_a_password_that_everybody_knows(tmp_path: Path) -> None:
    settings = read(tmp_path)
    passwords = {
        role: settings.password(role) for role in ("postgres", "supabase_admin", "fleet_worker")
    }

    assert passwords["postgres"] == "postgres"
    assert len(set(passwords.values())) == 3
    assert len(passwords["supabase_admin"]) == 32


@pytest.mark.parametrize("role", ["anon", "service_role"])
def test_keys_are_tokens_of_their_role(tmp_path: Path, role: str) -> None:
    settings = read(tmp_path)
    key = settings.anon_key if role == "anon" else settings.service_role_key

    assert jwt.decode(key, settings.jwt_secret, algorithms=["HS256"])["role"] == role


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_port", "no"),
        ("api_port", "0"),
        ("db_port", "65536"),
        ("net_pace", "perhaps"),
        ("default_privileges", "newest"),
        ("jwks", "/nowhere.json"),
        ("jwks", "{}"),
        ("jwks", "{"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"PGFLEET_LOCAL_{name.upper()}"):
        read(tmp_path, **{name: value})


def test_a_jwks_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [{"kty": "EC"}]}))

    assert read(tmp_path, jwks=str(file)).jwks == {"keys": [{"kty": "EC"}]}


def test_data_lies_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert default_data_dir() == tmp_path / ".local"


def test_root_keeps_data_where_its_servers_can_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0)

    assert default_data_dir().parent == Path("/var/tmp")
    assert default_data_dir() == default_data_dir()


def test_a_folder_without_postgres_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLEET_LOCAL_PG_BIN", str(tmp_path))

    with pytest.raises(BinariesError, match=str(tmp_path)):
        find_binaries()


def test_programs_that_do_not_run_are_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLEET_LOCAL_PG_BIN", str(tmp_path))
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text("#!/bin/sh\necho libssl.so.1: no such file >&2\nexit 127\n")
    with pytest.raises(BinariesError, match=r"postgres does not run: .*denied"):
        find_binaries()
    (tmp_path / "postgres").chmod(0o755)
    with pytest.raises(BinariesError, match=r"postgres does not run: libssl\.so\.1: no such file"):
        find_binaries()


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out the programs as bundles of the server alone do: no pg_config, libraries beside."""
    here = find_binaries()
    for name in ("bin", "lib"):
        (tmp_path / name).mkdir()
    for program in ("postgres", "initdb"):
        (tmp_path / "bin" / program).symlink_to(here.program(program))
    monkeypatch.setenv("PGFLEET_LOCAL_PG_BIN", str(tmp_path / "bin"))
    return tmp_path


@pytest.mark.parametrize("place", ["lib", "lib/postgresql"])
def test_a_bundle_without_pg_config_tells_what_it_can_load(bundle: Path, place: str) -> None:
    folder = bundle / place
    folder.mkdir(exist_ok=True)
    (bundle / "lib" / "libpq.so.5").touch()
    for module in ("plpgsql", "pg_cron"):
        (folder / f"{module}.so").touch()

    found = find_binaries()

    assert found.folder == bundle / "bin"
    assert found.has_library("pg_cron")
    assert not found.has_library("pg_net")
    assert "wal_level" in found.settings


def test_what_is_pointed_at_is_taken_though_it_has_no_pg_cron(bundle: Path) -> None:
    assert not find_binaries().has_library("pg_cron")
    assert find_binaries().folder == bundle / "bin"


@pytest.mark.pg_cron
def test_the_server_that_is_found_has_pg_cron() -> None:
    found = find_binaries()

    assert found.has_library("pg_cron")
    assert not found.has_library("no_such_library")
    assert "wal_level" in found.settings
    assert find_binaries(found.version).folder == found.folder
