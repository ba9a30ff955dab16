"""Software on the device: packages in order, detected, installed, taken off."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.deploying import FakeServer, carry_out, entry, package

from pgfleet.agent.handlers.deploy.software import split_command
from pgfleet.agent.handlers.interface import HandlerFailed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "c"
    made.mkdir()
    return made


def test_packages_are_installed_in_order_without_a_shell(root: Path, tmp_path: Path) -> None:
    script = b'#!/bin/sh\necho "$@" >> "$1"\n'
    log = root / "log"
    packages = [
        package(1, install_command=f"sh {{file}} {log} one;touch $HOME", file=entry(1, "i", script))
    ]
    packages.append(package(2, install_command=f"sh -c 'echo two >> {log}'"))
    server = FakeServer({"kind": "software", "uninstall": False, "packages": packages}, {})
    server.objects = {packages[0]["file"]["path"]: script}
    outcome, _ = carry_out(
        server, tmp_path / "state", "deploy_software", allow_install=True, roots={"C:": root}
    )
    assert outcome.status == "completed", outcome
    assert log.read_text() == f"{log} one;touch $HOME\ntwo\n"
    assert not list((tmp_path / "state" / "deploy" / "work").iterdir())


def test_the_name_of_an_installer_is_one_word_whatever_it_holds(root: Path, tmp_path: Path) -> None:
    script = b'#!/bin/sh\nprintf "%s" "$0" > "$1"\n'
    name = "a b; touch pwned; $(touch pwned) `id` && x.sh"
    one = package(
        1, name="$(id); x", install_command=f"sh {{file}} {root}/said", file=entry(1, name, script)
    )
    server = FakeServer({"kind": "software", "packages": [one]}, {one["file"]["path"]: script})
    outcome, _ = carry_out(server, tmp_path / "s", "deploy_software", allow_install=True)
    assert outcome.status == "completed", outcome
    assert (root / "said").read_text().endswith(f"/{name}")
    assert not list(tmp_path.rglob("pwned"))


def test_what_is_there_already_is_skipped_with_a_reason(root: Path, tmp_path: Path) -> None:
    there = root / "there"
    there.write_text("x")
    rules = [{"path": str(there)}, {"command": "echo v2.1", "output": "2.1"}]
    packages = [package(n, install_command="false", detection=r) for n, r in enumerate(rules)]
    packages.append(package(9, install_command="false", platform="plan9"))
    server = FakeServer({"kind": "software", "packages": packages}, {})
    outcome, _ = carry_out(server, tmp_path / "s", "deploy_software", allow_install=True)
    assert outcome.status == "completed", outcome
    assert outcome.result["state"] == "skipped"
    assert outcome.result["reason"] == "it is for plan9; it is installed already"


def test_an_installer_has_its_time_and_its_exit_code_is_told(tmp_path: Path) -> None:
    slow = package(1, install_command="sleep 30", timeout_seconds=0.2)
    server = FakeServer({"kind": "software", "packages": [slow]}, {})
    outcome, _ = carry_out(server, tmp_path / "s", "deploy_software", allow_install=True)
    assert (outcome.status, outcome.reason) == ("failed", "timeout")
    bad = package(2, install_command="sh -c 'echo no >&2; exit 4'")
    server = FakeServer({"kind": "software", "packages": [bad]}, {})
    outcome, _ = carry_out(server, tmp_path / "t", "deploy_software", allow_install=True)
    assert (outcome.error, outcome.reason) == ("tool-2: exit code 4: no", "error")
    assert outcome.result["packages"][0]["exit_code"] == 4


def test_installers_run_only_where_the_operator_of_the_device_allows_it(tmp_path: Path) -> None:
    server = FakeServer({"kind": "software", "packages": []}, {})
    outcome, _ = carry_out(server, tmp_path / "s", "deploy_software")
    assert (outcome.status, outcome.reason) == ("failed", "forbidden")


def test_what_was_begun_when_the_power_went_is_not_repeated_blindly(tmp_path: Path) -> None:
    notes = tmp_path / "s" / "deploy" / "notes"
    notes.mkdir(parents=True)
    for folder in (tmp_path / "s", notes):
        folder.chmod(0o700)
    (notes / "5.json").write_text('{"1": "done", "2": "begun"}')
    mark = tmp_path / "ran"
    plain = [package(1, install_command="false"), package(2, install_command=f"touch {mark}")]
    server = FakeServer({"kind": "software", "packages": plain}, {})
    outcome, _ = carry_out(server, tmp_path / "s", "deploy_software", allow_install=True)
    assert (outcome.status, outcome.reason) == ("failed", "interrupted")
    assert not mark.exists()
    plain[1]["detection"] = {"path": str(mark)}
    outcome, _ = carry_out(server, tmp_path / "s", "deploy_software", allow_install=True)
    assert outcome.status == "completed" and mark.exists()
    assert not (notes / "5.json").exists()


def test_a_package_is_taken_off_and_its_absence_checked(root: Path, tmp_path: Path) -> None:
    there = root / "there"
    there.write_text("x")
    one = package(1, uninstall_command=f"rm {there}", detection={"path": str(there)})
    server = FakeServer({"kind": "software", "uninstall": True, "packages": [one]}, {})
    outcome, _ = carry_out(server, tmp_path / "s", "deploy_software", allow_install=True)
    assert outcome.status == "completed" and not there.exists()
    outcome, _ = carry_out(server, tmp_path / "s", "deploy_software", allow_install=True)
    assert outcome.result["state"] == "skipped"


@pytest.mark.parametrize("line", ["", "  ", "tool 'open", "tool {file}"])
def test_a_command_that_cannot_be_read_is_refused(line: str) -> None:
    with pytest.raises(HandlerFailed):
        split_command(line, {})
