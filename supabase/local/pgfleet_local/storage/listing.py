"""Show objects as folders do: what is directly below a prefix."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def listed(rows: list[Row], below: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the files and folders below a prefix, in order, by page."""
    entries: dict[str, dict[str, Any]] = {}
    search = str(body.get("search") or "").lower()
    for row in rows:
        name, _, rest = str(row["name"])[len(below) :].partition("/")
        if search not in name.lower():
            continue
        entries.setdefault(name, _folder(name) if rest else _file(name, row))
    sort = body.get("sortBy") if isinstance(body.get("sortBy"), dict) else {}
    column = str((sort or {}).get("column") or "name")
    down = (sort or {}).get("order") == "desc"
    found = sorted(entries.values(), key=lambda e: str(e.get(column) or ""), reverse=down)
    offset, limit = _number(body.get("offset"), 0), _number(body.get("limit"), 100)
    return found[offset : offset + limit]


def _folder(name: str) -> dict[str, Any]:
    keys = ("id", "updated_at", "created_at", "last_accessed_at", "metadata")
    return {"name": name, **dict.fromkeys(keys)}


def _file(name: str, row: Row) -> dict[str, Any]:
    created, updated = row["created_at"].isoformat(), row["updated_at"].isoformat()
    return {
        "name": name,
        "id": str(row["id"]),
        "updated_at": updated,
        "created_at": created,
        "last_accessed_at": updated,
        "metadata": row["metadata"],
    }


def _number(value: Any, default: int) -> int:
    return value if isinstance(value, int) and value >= 0 else default
