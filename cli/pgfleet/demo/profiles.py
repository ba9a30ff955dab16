"""The demo's second act: profiles that come within a second through an MDM, and go on time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
from psycopg.types.json import Jsonb

from pgfleet.demo.platform import Platform
from pgfleet.demo.report import percentiles

STAY_SECONDS = 2
PRESS_EVERY_SECONDS = 0.15
# As fast as the sandbox: the demo shows what pgfleet adds to it, not how long a queue is.
SETTINGS = {"rate_per_second": 200, "burst": 50}

Await = Callable[[Callable[[], bool], str], None]


class ProfileAct:
    """Install a profile for two seconds on each of some iPads, and see when it came and went."""

    def __init__(self, platform: Platform, db: psycopg.Connection[Any], await_: Await) -> None:
        self._platform = platform
        self._db = db
        self._await = await_

    def play(self, count: int) -> dict[str, Any]:
        """Play it and give how long things took, by the clock of the sandbox."""
        with httpx.Client(
            base_url=f"{self._platform.simplemdm_url}/control", trust_env=False, timeout=30
        ) as sandbox:
            made = sandbox.post("/profiles", json={"names": ["Exam mode"]}).json()["data"]
            sandbox.post("/devices", json={"count": count, "model_name": "iPad (10th gen)"})
            devices = self._sync(count)
            profile = int(made[0]["id"])
            pressed: dict[int, float] = {}
            for external_id, device_id in devices.items():
                pressed[external_id] = time.time()
                self._install(profile, device_id)
                time.sleep(PRESS_EVERY_SECONDS)
            self._await(self._settled, "profiles were not removed")
            return _report(sandbox.get("/history").json()["history"], pressed)

    def _sync(self, count: int) -> dict[int, int]:
        """Connect the account and give the MDM's id of each device with ours."""
        spec = {
            "name": "iPads",
            "integration_type": "simplemdm",
            "settings": {"base_url": f"{self._platform.simplemdm_url}/api/v1", **SETTINGS},
        }
        self._db.execute(
            "select public.sync_integration(i.id) from public.create_integration(%s, %s) as i",
            (Jsonb(spec), self._platform.simplemdm_key),
        )
        query = "select external_id, device_id from public.device_links"

        def links() -> dict[int, int]:
            return {int(there): here for there, here in self._db.execute(query)}

        self._await(lambda: len(links()) >= count, "the inventory of the MDM was not read")
        return links()

    def _install(self, profile: int, device_id: int) -> None:
        self._db.execute(
            "select public.install_profile(%s, %s, make_interval(secs => %s))",
            (str(profile), device_id, STAY_SECONDS),
        )

    def _settled(self) -> bool:
        """Tell whether each profile was seen to be gone."""
        [(left,)] = self._db.execute(
            "select count(*) from public.temporary_profiles as t"
            " where not exists (select from public.device_commands as c"
            " where c.schedule_id = t.remove_schedule_id and c.status = 'completed')"
        ).fetchall()
        return bool(left == 0)


def _report(history: list[dict[str, Any]], pressed: dict[int, float]) -> dict[str, Any]:
    """Compare when profiles came and went with when that was asked for."""
    at = {(one["event"], one["device_id"]): float(one["at"]) for one in history}
    waits = [at["installed", one] - began for one, began in pressed.items()]
    lates = [at["removed", one] - began - STAY_SECONDS for one, began in pressed.items()]
    return {
        "profiles": len(pressed),
        "pressed_to_installed_ms": percentiles([1000 * one for one in waits]),
        "end_to_removed_ms": percentiles([1000 * one for one in lates]),
        "latest_removal_ms": round(1000 * max(lates), 1),
    }
