"""Spans that are kept in memory, in place of a system that collects them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pgfleet_functions.tracing import run_ids


@cache
def _exporter() -> InMemorySpanExporter:
    # A process has one provider for as long as it lives.
    exporter, provider = InMemorySpanExporter(), TracerProvider(id_generator=run_ids())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@contextmanager
def collected() -> Iterator[InMemorySpanExporter]:
    """Collect the spans of this process while the block lasts."""
    exporter = _exporter()
    exporter.clear()
    yield exporter


def of_trace(exporter: InMemorySpanExporter, trace_id: str) -> list[ReadableSpan]:
    """Give the spans of one trace, in the order in which they ended."""
    return [
        one
        for one in exporter.get_finished_spans()
        if one.context is not None and f"{one.context.trace_id:032x}" == trace_id
    ]


def parent_of(one: ReadableSpan) -> str | None:
    """Give the id of a span's parent."""
    return None if one.parent is None else f"{one.parent.span_id:016x}"


def id_of(one: ReadableSpan) -> str:
    """Give the id of a span."""
    assert one.context is not None
    return f"{one.context.span_id:016x}"
