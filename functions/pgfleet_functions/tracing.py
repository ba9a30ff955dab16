"""Spans of what the functions do, where OpenTelemetry is installed; else nothing."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@cache
def _api() -> Any:
    try:
        return importlib.import_module("opentelemetry.trace")
    except ModuleNotFoundError:
        return None


def set_up(service: str) -> None:
    """Export spans as the variables of OpenTelemetry say, where they name an address."""
    addresses = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if _api() is None or not any(os.environ.get(name) for name in addresses):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # What OTEL_SERVICE_NAME says goes before.
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _api().set_tracer_provider(provider)


@contextmanager
def span(
    name: str, trace_id: str | None = None, *, links: tuple[Any, ...] = (), **attributes: Any
) -> Iterator[None]:
    """Tell of a piece of work: in the trace of a run, below its span, or below what is under way.

    What broke is told by its type only: what it says may hold anything.
    """
    api = _api()
    if api is None:
        yield
        return
    known = {f"pgfleet.{key}": value for key, value in attributes.items() if value is not None}
    with api.get_tracer("pgfleet").start_as_current_span(
        name,
        context=None if trace_id is None else _within(api, trace_id),
        attributes=known,
        links=[api.Link(one) for one in links],
        record_exception=False,
        set_status_on_exception=False,
    ) as one:
        try:
            yield
        except BaseException as error:
            one.set_attribute("error.type", type(error).__name__)
            one.set_status(api.StatusCode.ERROR)
            raise


def _within(api: Any, trace_id: str) -> Any:
    # The span of the run: no process has it, so that its id follows from the trace's.
    run = api.SpanContext(
        trace_id=int(trace_id, 16),
        span_id=int(trace_id[:16], 16) or 1,
        is_remote=True,
        trace_flags=api.TraceFlags(api.TraceFlags.SAMPLED),
    )
    return api.set_span_in_context(api.NonRecordingSpan(run))


def here() -> tuple[Any, ...]:
    """Give the span that is under way, to link to it what follows from it later."""
    api = _api()
    present = None if api is None else api.get_current_span().get_span_context()
    return (present,) if present is not None and present.is_valid else ()
