"""What others wrote, made harmless: for a terminal, for JSON and for a spreadsheet."""

from __future__ import annotations

import re

# Control characters but for tab and line feed, what turns the direction of text around or is not
# seen at all, and halves of characters, which no stream takes.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
# What a spreadsheet takes for a formula, also in its wide form and behind blanks.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")

HIDDEN = "[hidden]"
# What is a secret by its form: tokens, keys that say what they are, and long random numbers.
_SECRET = re.compile(
    r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?|\bwhsec_[\w+/=]+|\bsb_secret_\w+|\bpoke\.[\w.-]{20,}"
    r"|\b[0-9a-fA-F]{48,}\b"
)
# What is one by where it stands: behind its name, in a header, in an address.
_SECRET_OF = re.compile(
    r"""(?ix)
    ( \b(?:bearer|basic)\s+
    | \b(?:[\w-]*(?:api_?-?key|token|secret|password|passwd|authorization|credential)[\w-]*)
      (?: \s*=\s*["']? | ["']\s*:\s*["']? | :\s+(?:bearer|basic)\s+ )
    | ://[^/\s:@]*:(?=[^/\s@]+@)
    )
    [^\s"'&,;@}]+ """
)


def without_secrets(text: str) -> str:
    """Hide what gives access, whoever wrote it into a message."""
    return _SECRET_OF.sub(rf"\1{HIDDEN}", _SECRET.sub(HIDDEN, text))


def visible(text: str) -> str:
    """Show as `\\x1b` what would move the cursor, hide text or turn it around."""
    return _UNSAFE.sub(_escaped, text)


def one_line(text: str) -> str:
    """Give text as one visible line."""
    return visible(" ".join(text.split()))


def json_text(text: str) -> str:
    """Escape in JSON what it may hold as it is and a terminal must not get."""
    return _UNSAFE.sub(_escaped_for_json, text)


def csv_cell(text: str) -> str:
    """Let no spreadsheet compute what is text; a number stays one."""
    if text[:1] in ("\t", "\r") or (_FORMULA.match(text) and not _NUMBER.fullmatch(text)):
        text = f"'{text}"
    return visible(text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _escaped_for_json(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))
