from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg

from pgfleet_local.bootstrap import prepare_cluster, prepare_database
from pgfleet_local.server.cluster import Cluster
from pgfleet_local.settings import StackSettings


def wait_for(status: int, ask: Callable[[], httpx.Response]) -> httpx.Response:
    end = time.monotonic() + 30
    while (answer := ask()).status_code != status:
        assert time.monotonic() < end, answer.text
        time.sleep(0.02)
    return answer


def test_requests_get_503_while_postgres_is_down_and_work_when_it_is_back(
    fast_folder: Path, free_port: Callable[[], int], serving_rest: Any
) -> None:
    settings = StackSettings(
        data_dir=fast_folder / "restarted",
        jwt_secret=secrets.token_hex(32),
        db_port=free_port(),
        durable=False,
    )
    cluster = Cluster(settings)
    cluster.create()
    cluster.start()
    try:
        prepare_cluster(settings.admin_url)
        prepare_database(settings.admin_url, cron=False, net=False)
        cluster.set_passwords()
        with psycopg.connect(settings.db_url) as owner:
            owner.execute("create table public.things (id integer)")
            owner.execute("grant select on public.things to anon")
        with (
            serving_rest(settings.authenticator_url, settings.jwt_secret, free_port()) as url,
            httpx.Client(headers={"apikey": settings.anon_key}, timeout=20) as http,
        ):
            things = f"{url}/rest/v1/things"
            wait_for(200, lambda: http.get(things))

            cluster.stop("fast")
            down = wait_for(503, lambda: http.get(things))
            still_down = http.get(things)
            cluster.start()
            back = wait_for(200, lambda: http.get(things))

        assert down.json()["code"].startswith("PGRST00")
        assert (still_down.status_code, still_down.headers["retry-after"]) == (503, "1")
        assert back.json() == []
    finally:
        cluster.stop("immediate")
