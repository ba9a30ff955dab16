"""GET /metrics: the figures of the platform, as Prometheus reads them."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from pgfleet_functions.database import fetch_value
from pgfleet_functions.errors import NotSignedIn


async def metrics(request: Request) -> Response:
    """Answer with the figures in text; the bearer is PGFLEET_METRICS_TOKEN or the service key."""
    _check_scraper(request)
    found = await fetch_value(request.app.state.pool, "select fleet.worker_metrics()")
    return Response(as_text(found or []), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def as_text(figures: Iterable[dict[str, Any]]) -> bytes:
    """Write figures `{name, labels, value, help}`, which come in the order of their names."""
    registry = CollectorRegistry()
    registry.register(_Found(list(figures)))
    return generate_latest(registry)


class _Found(Collector):
    """Figures that were read in one look."""

    def __init__(self, figures: list[dict[str, Any]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for name, group in groupby(self._figures, key=lambda one: str(one["name"])):
            figures = list(group)
            labels = sorted(figures[0]["labels"])
            family = GaugeMetricFamily(name, figures[0]["help"], labels=labels)
            for one in figures:
                family.add_metric([str(one["labels"][label]) for label in labels], one["value"])
            yield family


def _check_scraper(request: Request) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    own = request.app.state.metrics_token
    if scheme.lower() == "bearer" and token:
        if own and hmac.compare_digest(own.encode(), token.encode()):
            return
        if request.app.state.signer.is_service_key(token):
            return
    raise NotSignedIn(
        "the metrics are for monitoring only",
        details="metrics_token_invalid",
        hint="Send the header Authorization: Bearer with PGFLEET_METRICS_TOKEN or the service key.",
    )
