"""The calls that a device makes, on the official client, with token renewal."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from supabase import AsyncClient, AsyncClientOptions, PostgrestAPIError

from pgfleet.agent import credentials
from pgfleet.agent.credentials import Credentials
from pgfleet.agent.enroll import Token, facts, fetch_token
from pgfleet.agent.http import Moved, is_refusal, not_ours, refusal, unreachable
from pgfleet.agent.journal import Outcome
from pgfleet.agent.location.fix import Fix, Place, parse_places
from pgfleet.agent.moves import MOST_HOPS, followed, settings_of
from pgfleet.agent.settings import AgentSettings
from pgfleet.errors import FleetError, NotAllowed, NotSignedIn, Unavailable

logger = logging.getLogger(__name__)

# A request signed with less than this left could arrive too late.
_MARGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Command:
    """Hold one leased command as the server handed it out."""

    command_id: int
    command_type: str
    payload: dict[str, Any]
    attempt: int
    rerun_safe: bool
    timeout_seconds: float | None
    lease_seconds: float
    # With its number, this tells it from any other, also where a server was restored.
    made_at: str = ""
    run_id: int | None = None
    trace_id: str | None = None

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Command:
        """Read one row of `claim_commands`; raises KeyError or the like when it is none."""
        timeout = row.get("timeout_seconds")
        return cls(
            command_id=int(row["command_id"]),
            command_type=str(row["command_type"]),
            payload=row["payload"] if isinstance(row["payload"], dict) else {},
            attempt=int(row["attempt"]),
            rerun_safe=bool(row["rerun_safe"]),
            timeout_seconds=None if timeout is None else float(timeout),
            lease_seconds=float(row["lease_seconds"]),
            made_at=_in_utc(row.get("created_at")),
            run_id=row.get("run_id"),
            trace_id=row.get("trace_id"),
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """Hold how an attempt ended, as it is to be reported."""

    command_id: int
    attempt: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what the server said to a finish, an extension or a release."""

    accepted: bool
    reason: str | None = None
    status: str | None = None
    retry_at: datetime | None = None

    @classmethod
    def from_json(cls, found: object) -> Answer:
        """Read the jsonb that these functions return."""
        try:
            if not isinstance(found, dict):
                raise TypeError("no object")
            retry_at = found.get("retry_at")
            return cls(
                accepted=bool(found["accepted"]),
                reason=found.get("reason"),
                status=found.get("status"),
                retry_at=None if retry_at is None else datetime.fromisoformat(retry_at),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _nonsense("the call", found) from error


@dataclass(frozen=True, slots=True)
class LocationAnswer:
    """Hold what the server made of a position, and in which locations it has the device."""

    accepted: bool
    reason: str | None
    places: tuple[Place, ...]

    @classmethod
    def from_json(cls, found: object) -> LocationAnswer:
        """Read the jsonb that `report_location` returns."""
        try:
            if not isinstance(found, dict):
                raise TypeError("no object")
            places = parse_places(found["places"])
            return cls(bool(found["accepted"]), found.get("reason"), places)
        except (KeyError, TypeError, ValueError) as error:
            raise _nonsense("report_location", found) from error


class DeviceClient:
    """Speak for one device; every call renews the token when that is needed.

    Calls raise FleetError: transient ones may be repeated, `IdentityRefused` is the end.
    """

    def __init__(
        self, found: Credentials, settings: AgentSettings, http: httpx.AsyncClient
    ) -> None:
        self.credentials = found
        self.topic = found.topic
        # Set, and replaced by another, when the fleet has moved to another platform.
        self.moved = asyncio.Event()
        self._http = http
        self._turn_to(settings_of(found, settings))
        self._token: Token | None = None
        self._renewing = asyncio.Lock()
        # How often it joined its topic since the server was last told so.
        self.joins = 0

    @property
    def settings(self) -> AgentSettings:
        """Give the settings with the place where the server is now."""
        return self._settings

    def _turn_to(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._supabase = AsyncClient(
            settings.url,
            settings.anon_key,
            AsyncClientOptions(
                httpx_client=self._http, auto_refresh_token=False, persist_session=False
            ),
        )

    async def _fetch_token(self) -> tuple[Token, str]:
        """Ask for a token where the fleet is; follow it where it has gone."""
        for _ in range(MOST_HOPS):
            try:
                return await fetch_token(self.credentials, self._settings, self._http)
            except Moved as moved:
                self.credentials = followed(self.credentials, moved)
                credentials.save(self._settings.state_dir, self.credentials)
                logger.warning("this device's fleet has moved to %s", self.credentials.url)
                self._turn_to(settings_of(self.credentials, self._settings))
                self.moved.set()
                self.moved = asyncio.Event()
        raise Unavailable(
            "this device's fleet is said to be elsewhere again and again",
            reason="moves_in_a_circle",
            hint="Ask whoever moved it: pgfleet owner moved-to",
        )

    async def token(self, *, newer_than: Token | None = None, life_left: float = 0.0) -> Token:
        """Give a token that is good for a while, asking for a new one when needed.

        `newer_than` is one that did not work; `life_left` the share of its life that must
        remain.
        """
        async with self._renewing:
            present = self._token
            if (
                present is None
                or present is newer_than
                or present.remaining
                < max(min(_MARGIN_SECONDS, present.lifetime / 4), life_left * present.lifetime)
            ):
                present, self.topic = await self._fetch_token()
                self._token = present
                logger.debug("a new token, good for %.0f s", present.lifetime)
            return present

    async def claim(self, limit: int, journal_id: str) -> list[Command]:
        """Lease up to `limit` commands under this journal."""
        rows = await self._call("claim_commands", {"p_limit": limit, "p_journal": journal_id})
        try:
            if not isinstance(rows, list):
                raise TypeError("no list")
            return [Command.from_row(row) for row in rows]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # A hotel's login page answers 200 to everything.
            raise _nonsense("claim_commands", rows) from error

    async def work(
        self, finished: list[Ended], limit: int, journal_id: str
    ) -> tuple[list[Answer], list[Command]]:
        """Report how several attempts ended, and lease up to `limit` further commands."""
        found = await self._call(
            "work",
            {
                "p_finished": [
                    {
                        "command_id": ended.command_id,
                        "attempt": ended.attempt,
                        "status": ended.outcome.status,
                        "result": ended.outcome.result,
                        "error": ended.outcome.error,
                        "reason": ended.outcome.reason,
                    }
                    for ended in finished
                ],
                "p_limit": limit,
                "p_journal": journal_id,
            },
        )
        try:
            answers = [Answer.from_json(entry) for entry in found["finished"]]
            if len(answers) != len(finished):
                raise ValueError("not one answer for each result")
            return answers, [Command.from_row(row) for row in found["commands"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _nonsense("work", found) from error

    async def finish(self, command_id: int, attempt: int, outcome: Outcome) -> Answer:
        """Report how an attempt ended."""
        params = {
            "p_command_id": command_id,
            "p_attempt": attempt,
            "p_status": outcome.status,
            "p_result": outcome.result,
            "p_error": outcome.error,
            "p_reason": outcome.reason,
        }
        return Answer.from_json(await self._call("finish_command", params))

    async def extend(
        self, command_id: int, attempt: int, progress: dict[str, Any] | None = None
    ) -> Answer:
        """Ask for more time for a running attempt, and say how far it is."""
        params: dict[str, Any] = {"p_command_id": command_id, "p_attempt": attempt}
        if progress is not None:
            params["p_progress"] = progress
        return Answer.from_json(await self._call("extend_command", params))

    async def release(self, command_id: int, attempt: int) -> Answer:
        """Give back a command that was not started."""
        params = {"p_command_id": command_id, "p_attempt": attempt}
        return Answer.from_json(await self._call("release_command", params))

    async def manifest(self, command_id: int) -> dict[str, Any]:
        """Ask what a command deploys."""
        answer = await self._call("deployment_manifest", {"p_command_id": command_id})
        if not isinstance(answer, dict):
            raise _nonsense("deployment_manifest", answer)
        return answer

    @property
    def http(self) -> httpx.AsyncClient:
        """Give the transport that all devices of this process share."""
        return self._http

    async def checkin(self, told: dict[str, Any] | None = None) -> dict[str, Any]:
        """Tell the server what this device is, or some facts only, and hear what it wants."""
        if told is None:
            told = await asyncio.to_thread(facts)
        sockets = self.joins
        if sockets:
            told = told | {"sockets": min(sockets, 9999)}
        answer = await self._call("device_checkin", {"p_facts": told})
        if not isinstance(answer, dict) or "pending" not in answer:
            raise _nonsense("device_checkin", answer)
        self.joins -= sockets
        return answer

    async def blocklist(self, kind: str) -> dict[str, Any]:
        """Ask what this device is to block: website or software."""
        answer = await self._call("device_blocklist", {"p_kind": kind})
        if not isinstance(answer, dict):
            raise _nonsense("device_blocklist", answer)
        return answer

    async def report_location(self, fix: Fix) -> LocationAnswer:
        """Tell where this device is or was; the same fix may be told again."""
        params = {
            "p_latitude": fix.latitude,
            "p_longitude": fix.longitude,
            "p_accuracy_m": fix.accuracy_m,
            "p_located_at": fix.located_at.isoformat(),
        }
        return LocationAnswer.from_json(await self._call("report_location", params))

    async def geo_actions_due(self) -> tuple[datetime, list[dict[str, Any]]]:
        """Hear the server's time and the geo actions that this device owes."""
        found = await self._call("geo_actions_due", {})
        try:
            now, actions = datetime.fromisoformat(found["now"]), found["actions"]
            if not isinstance(actions, list) or now.tzinfo is None:
                raise TypeError("no list of actions at a time")
        except (KeyError, TypeError, ValueError) as error:
            raise _nonsense("geo_actions_due", found) from error
        return now, actions

    async def report_geo_action(
        self, geo_action_id: int, status: str, met_at: datetime | None, reason: str | None
    ) -> Answer:
        """Tell how a geo action stands; a repetition changes nothing."""
        params = {
            "p_geo_action_id": geo_action_id,
            "p_status": status,
            "p_location_met_at": None if met_at is None else met_at.isoformat(),
            "p_reason": reason,
        }
        return Answer.from_json(await self._call("report_geo_action", params))

    async def _call(self, function: str, params: dict[str, Any]) -> Any:
        token = await self.token()
        try:
            return await self._post(function, params, token)
        except (NotSignedIn, NotAllowed) as error:
            # The token has ended by the server's clock, or it names an identity that the
            # device had before it was re-keyed or retired: the token endpoint knows which.
            logger.debug("%s: %s; asking for a new token", function, error.message)
            return await self._post(function, params, await self.token(newer_than=token))

    async def _post(self, function: str, params: dict[str, Any], token: Token) -> Any:
        self._supabase.postgrest.auth(token.value)
        try:
            return (await self._supabase.rpc(function, params).execute()).data
        except PostgrestAPIError as error:
            if (strange := _strange_answer(function, error)) is not None:
                raise strange from error
            raise refusal(
                _status_of(error),
                error.code,
                error.message,
                details=None if error.details is None else str(error.details),
                hint=error.hint,
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreachable(f"{self._settings.url}/rest/v1/rpc/{function}", error) from error


def _in_utc(instant: object) -> str:
    """Write an instant in one way, whatever zone the server speaks in; empty where it says none."""
    return (
        "" if instant is None else datetime.fromisoformat(str(instant)).astimezone(UTC).isoformat()
    )


def _nonsense(what: str, found: object) -> Unavailable:
    return not_ours(what, None, str(found))


def _strange_answer(function: str, error: PostgrestAPIError) -> FleetError | None:
    """Say that this is no refusal of our server; None when it is one.

    Of an answer that is no JSON of PostgREST the official client keeps the status as the code,
    and the text as details.
    """
    code, said = error.code or "", str(error.details or error.message or "")
    if not (code.isdigit() and len(code) == 3):
        return None if code else not_ours(function, None, said)
    try:
        known = json.loads(said)
    except (ValueError, RecursionError):
        known = None
    if int(code) >= 400 and is_refusal(known):
        # A gateway before it, which knows our keys and writes its code as a number.
        return refusal(int(code), None, known["message"], hint=known.get("hint"))
    return not_ours(function, int(code), said)


def _status_of(error: PostgrestAPIError) -> int:
    """Find the HTTP status again, which the official client keeps only in part."""
    code = error.code or ""
    if code.startswith("PT") and code[2:].isdigit():
        return int(code[2:])
    if code in ("PGRST301", "PGRST302", "PGRST303"):
        return 401
    if code in ("PGRST000", "PGRST001", "PGRST002", "PGRST003") or code[:2] in ("53", "08"):
        return 503
    if code[:2] in ("40", "55", "57", "XX"):
        return 500
    return {"42501": 403, "PGRST202": 404, "42883": 404}.get(code, 400)
