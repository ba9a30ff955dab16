"""The demo's files and software: two bodies of a task scheduler, carried out as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import psycopg

from pgfleet.demo.platform import Platform
from pgfleet.nouns.deploy import storage
from pgfleet.output import silent

Await = Callable[[Callable[[], bool], str], None]

# As a client of a task scheduler sends them; here they are run at once, and at their times too.
WEEKLY_SOFTWARE = """{
    "task_name": "Weekly Security Updates",
    "task_type": "software_deployment",
    "scheduled_time": "2025-10-28T02:00:00",
    "recurrence_type": "weekly",
    "recurrence_config": {
      "type": "weekly",
      "days_of_week": [0],
      "time": "02:00"
    },
    "group_ids": [1],
    "software_payload": {
      "software_ids": [5, 8],
      "deployment_name": "Weekly Updates"
    }
  }"""
DAILY_FILES = """{
    "task_name": "Daily Config Sync",
    "task_type": "file_deployment",
    "scheduled_time": "2025-10-26T01:00:00",
    "recurrence_type": "daily",
    "recurrence_config": {
      "type": "daily",
      "time": "01:00"
    },
    "device_ids": [1, 2, 3],
    "file_payload": {
      "file_ids": [10, 11],
      "target_path": "C:\\\\Config",
      "create_path_if_not_exists": true
    }
  }"""
FILES = {10: ("app.conf", b"colour = blue\n"), 11: ("motd.txt", b"Good morning\n")}
PACKAGES = {5: "updates", 8: "reader"}

_ENDED = """
select count(*) filter (where t.finished_at is null) = 0 and count(distinct d.id) = 2
from public.deployments as d
join public.deployment_targets as t on t.deployment_id = d.id
"""
_STATES = """
select d.name, t.state, count(*)
from public.deployments as d
join public.deployment_targets as t on t.deployment_id = d.id
group by d.name, t.state
"""


class DeploymentAct:
    """Send two files and two packages to the first devices, and look at what is in place."""

    def __init__(self, platform: Platform, db: psycopg.Connection[Any], await_: Await) -> None:
        self._platform = platform
        self._db = db
        self._await = await_

    def play(self) -> dict[str, Any]:
        """Play it; say how many devices came to which state, and how many files are right."""
        self._upload()
        for number, name in PACKAGES.items():
            self._db.execute(
                "insert into public.software_packages (id, name, version, install_command)"
                " values (%s, %s, '1', 'true')",
                (number, name),
            )
        self._db.execute(
            "insert into public.device_groups (id, name, selector) values (1, 'labs', null)"
        )
        self._db.execute("select public.add_to_group(1, '{1,2,3}')")
        for body in (WEEKLY_SOFTWARE, DAILY_FILES):
            self._db.execute(
                "select public.run_schedule((public.create_schedule(%s::jsonb) ->> 'id')::bigint)",
                (body,),
            )
        self._await(self._ended, "deployments did not come to an end")
        found: dict[str, dict[str, int]] = {}
        for name, state, count in self._db.execute(_STATES):
            found.setdefault(str(name), {})[str(state)] = int(count)
        return {"deployments": found, "files_in_place": self._right_files()}

    def _upload(self) -> None:
        where = storage.Access(self._platform.api_url, self._platform.service_role_key)
        for number, (name, content) in FILES.items():
            path = self._platform.folder / name
            path.write_bytes(content)
            row = self._db.execute(
                "insert into public.deployment_files (id, name, size_bytes, sha256)"
                " values (%s, %s, %s, %s) returning storage_path",
                (number, name, len(content), hashlib.sha256(content).hexdigest()),
            ).fetchone()
            assert row is not None
            storage.upload(where, str(row[0]), path, len(content), silent)

    def _ended(self) -> bool:
        row = self._db.execute(_ENDED).fetchone()
        return bool(row and row[0])

    def _right_files(self) -> int:
        return sum(
            (root / "Config" / name).read_bytes() == content
            for root in sorted(self._platform.drive.iterdir())
            for name, content in FILES.values()
            if (root / "Config" / name).is_file()
        )
