"""What a person reads: data to stdout, talk to stderr, and all of it harmless."""

from pgfleet.output.asking import Progress, confirm, progress, silent
from pgfleet.output.safe import one_line, visible
from pgfleet.output.show import (
    drawn,
    show_drawing,
    show_made,
    show_row,
    show_rows,
    show_sentence,
    show_text,
    show_variables,
)
from pgfleet.output.streams import did, is_terminal, say, show_error, show_sql, styled, warn, write
from pgfleet.output.tables import Row, console
from pgfleet.output.times import full as when
from pgfleet.output.times import soon
from pgfleet.output.values import as_text, sign
from pgfleet.output.waiting import follow, look_on, show_or_watch, watch_row
from pgfleet.output.words import wrapped

__all__ = [
    "Progress",
    "Row",
    "as_text",
    "confirm",
    "console",
    "did",
    "drawn",
    "follow",
    "is_terminal",
    "look_on",
    "one_line",
    "progress",
    "say",
    "show_drawing",
    "show_error",
    "show_made",
    "show_or_watch",
    "show_row",
    "show_rows",
    "show_sentence",
    "show_sql",
    "show_text",
    "show_variables",
    "sign",
    "silent",
    "soon",
    "styled",
    "visible",
    "warn",
    "watch_row",
    "when",
    "wrapped",
    "write",
]
