"""Spans of what the functions do, where OpenTelemetry is installed; else nothing."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from typing import Any

# The trace of a run whose span is being made.
_of_run: ContextVar[str | None] = ContextVar("of_run", default=None)


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
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}), id_generator=run_ids()
    )
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
    # The span of the run is told by another process, so its id follows from the trace's.
    run = api.SpanContext(
        trace_id=int(trace_id, 16),
        span_id=_span_of(trace_id),
        is_remote=True,
        trace_flags=api.TraceFlags(api.TraceFlags.SAMPLED),
    )
    return api.set_span_in_context(api.NonRecordingSpan(run))


def _span_of(trace_id: str) -> int:
    return int(trace_id[:16], 16) or 1


def run_ids() -> Any:
    """Give what makes ids: for the span of a run those that its commands know, else any."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class RunIds(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            trace_id = _of_run.get()
            return super().generate_trace_id() if trace_id is None else int(trace_id, 16)

        def generate_span_id(self) -> int:
            trace_id = _of_run.get()
            return super().generate_span_id() if trace_id is None else _span_of(trace_id)

    return RunIds()


def is_exporting() -> bool:
    """Tell whether spans go anywhere."""
    api = _api()
    return api is not None and hasattr(api.get_tracer_provider(), "id_generator")


def tell_run(
    trace_id: str, began: datetime, ended: datetime, *, has_failed: bool, **attributes: Any
) -> None:
    """Tell of a run that has ended: the span above all that was done for it."""
    api = _api()
    known = {f"pgfleet.{key}": value for key, value in attributes.items() if value is not None}
    token = _of_run.set(trace_id)
    try:
        one = api.get_tracer("pgfleet").start_span(
            "run",
            context=importlib.import_module("opentelemetry.context").Context(),
            attributes=known,
            start_time=_nanoseconds(began),
        )
    finally:
        _of_run.reset(token)
    if has_failed:
        one.set_status(api.StatusCode.ERROR)
    one.end(end_time=_nanoseconds(ended))


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000


def here() -> tuple[Any, ...]:
    """Give the span that is under way, to link to it what follows from it later."""
    api = _api()
    present = None if api is None else api.get_current_span().get_span_context()
    return (present,) if present is not None and present.is_valid else ()
