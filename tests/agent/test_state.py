"""The state folder: private, locked, replaced at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgfleet.agent import credentials, state
from pgfleet.agent.credentials import Credentials
from pgfleet.agent.settings import default_state_dir, simulation_state_dir
from pgfleet.errors import Conflict, InvalidInput, NotAllowed

SECRET = "a-secret-that-is-not-shown"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "device"
    state.prepare(made)
    return made


def some_credentials() -> Credentials:
    return Credentials(
        device_id=7,
        auth_id="0b1c",
        hostname="lab-01",
        topic="device:0b1c",
        device_secret=SECRET,
        url="http://127.0.0.1:1",
        functions_url="http://127.0.0.1:1/functions/v1",
        anon_key="anon",
    )


def test_the_folder_and_its_files_are_for_their_user_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        credentials.save(folder, some_credentials())
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / state.CREDENTIALS).stat().st_mode & 0o777 == 0o600


def test_credentials_come_back_as_they_were_stored(folder: Path) -> None:
    assert credentials.load(folder) is None
    credentials.save(folder, some_credentials())
    assert credentials.load(folder) == some_credentials()


def test_a_folder_that_others_can_enter_is_refused(folder: Path) -> None:
    folder.chmod(0o755)
    with pytest.raises(NotAllowed) as refused:
        state.prepare(folder)
    assert refused.value.reason == "state_dir_unsafe"
    assert refused.value.hint == f"chmod 700 {folder}"


def test_credentials_that_others_can_read_are_refused(folder: Path) -> None:
    credentials.save(folder, some_credentials())
    (folder / state.CREDENTIALS).chmod(0o644)
    with pytest.raises(NotAllowed):
        credentials.load(folder)


def test_a_link_in_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(NotAllowed):
        state.prepare(link)


def test_a_failed_write_leaves_the_old_file(folder: Path) -> None:
    credentials.save(folder, some_credentials())
    with pytest.raises(UnicodeEncodeError):
        state.write_private(folder / state.CREDENTIALS, "\ud800")
    assert credentials.load(folder) == some_credentials()
    assert [path.name for path in folder.iterdir()] == [state.CREDENTIALS]


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", json.dumps({"device_id": "x"})])
def test_damaged_credentials_name_the_file_and_the_next_step(folder: Path, content: str) -> None:
    state.write_private(folder / state.CREDENTIALS, content)
    with pytest.raises(InvalidInput) as refused:
        credentials.load(folder)
    assert str(folder) in refused.value.message
    assert "enroll" in (refused.value.hint or "")


def test_secrets_are_not_in_the_text_of_credentials() -> None:
    assert SECRET not in repr(some_credentials())
    assert SECRET not in json.dumps(some_credentials().without_secret())


def test_two_agents_cannot_share_a_folder(folder: Path) -> None:
    lock = state.FolderLock(folder)
    lock.acquire()
    try:
        assert state.lock_holder(folder) == os.getpid()
        with pytest.raises(Conflict) as refused:
            state.FolderLock(folder).acquire()
        assert refused.value.reason == "state_dir_locked"
        assert str(os.getpid()) in refused.value.message
    finally:
        lock.release()
    assert state.lock_holder(folder) is None


def test_the_lock_of_a_killed_agent_is_free(folder: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from pgfleet.agent.state import FolderLock;"
        "lock = FolderLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True);"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert state.lock_holder(folder) == holder.pid
        holder.kill()
        holder.wait()
    lock = state.FolderLock(folder)
    lock.acquire()
    lock.release()


def test_simulated_devices_live_with_their_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLEET_LOCAL_DATA_DIR", str(tmp_path / "one"))
    assert simulation_state_dir() == tmp_path / "one" / "agents"
    assert default_state_dir() != simulation_state_dir()

    monkeypatch.delenv("PGFLEET_LOCAL_DATA_DIR")
    assert simulation_state_dir() == default_state_dir()
