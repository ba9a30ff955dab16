"""Choose in which form rows are answered."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from pgfleet_local.rest.errors import RestError, not_served

JSON_TYPE = "application/json"
OBJECT_TYPES = ("application/vnd.pgrst.object+json", "application/vnd.pgrst.object")
ARRAY_TYPES = ("application/vnd.pgrst.array+json", "application/vnd.pgrst.array")
JSON_TYPES = ("", "*/*", "application/*", JSON_TYPE, *ARRAY_TYPES)
STRIPPED = ";nulls=stripped"
# What PostgREST answers and the local platform does not.
NOT_SERVED = {
    "text/csv": "answers in CSV",
    "application/geo+json": "answers in GeoJSON",
    "application/vnd.pgrst.plan": "execution plans as answers",
    "application/vnd.pgrst.plan+text": "execution plans as answers",
    "application/vnd.pgrst.plan+json": "execution plans as answers",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """One object or a list of them, with or without the keys whose value is null."""

    singular: bool = False
    stripped: bool = False

    @property
    def media_type(self) -> str:
        """The type that the answer names."""
        if self.singular:
            return OBJECT_TYPES[0] + (STRIPPED if self.stripped else "")
        return ARRAY_TYPES[0] + STRIPPED if self.stripped else JSON_TYPE


def read_shape(request: Request) -> Shape:
    """Read `Accept`: the first type that can be had, or PGRST107."""
    accepted = [_parts(item) for item in request.headers.get("accept", "").split(",")]
    for media, parameters in accepted:
        stripped = parameters.get("nulls") == "stripped"
        if media in OBJECT_TYPES:
            return Shape(singular=True, stripped=stripped)
        if media in JSON_TYPES:
            return Shape(stripped=stripped and media in ARRAY_TYPES)
    for media, _ in accepted:
        if media in NOT_SERVED:
            raise not_served(NOT_SERVED[media])
    media = ", ".join(media for media, _ in accepted)
    raise RestError(406, "PGRST107", f"None of these media types are available: {media}")


def _parts(item: str) -> tuple[str, dict[str, str]]:
    media, *parameters = (part.strip() for part in item.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    return media.lower(), {name.strip().lower(): value.strip() for name, _, value in pairs}
