"""GET /metrics, as a monitoring system reads it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families


def scrape(site: Any, token: str | None) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{site.url}/functions/v1/metrics", headers=headers)


def test_the_figures_are_read_as_prometheus_reads_them(site: Any) -> None:
    site.value("select fleet.tick()")
    answer = scrape(site, site.settings.service_role_key)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {one.name: one for one in text_string_to_metric_families(answer.text)}
    assert {one.type for one in families.values()} == {"gauge"}
    assert families["pgfleet_ticking"].samples[0].value == 1
    steps = {sample.labels["step"] for sample in families["pgfleet_step_seconds"].samples}
    assert {"start", "expand", "ring"} <= steps
    assert {sample.labels["table"] for sample in families["pgfleet_table_bytes"].samples}


@pytest.mark.parametrize("token", [None, "x", "wrong", "anon"])
def test_nobody_else_reads_them(site: Any, token: str | None) -> None:
    answer = scrape(site, site.settings.anon_key if token == "anon" else token)

    assert (answer.status_code, answer.json()["details"]) == (401, "metrics_token_invalid")
