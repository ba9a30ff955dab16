"""Signing in with a password, as the official client does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import jwt
import psycopg
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from supabase import Client, ClientOptions, create_client
from supabase_auth.errors import AuthApiError
from tests.helpers.serving import serving

from pgfleet_local.auth import Auth
from pgfleet_local.auth.tokens import Signer
from pgfleet_local.auth.users import UserError, create_user, delete_user, find_user, list_users
from pgfleet_local.rest import Rest
from pgfleet_local.tokens import TokenVerifier

PASSWORD = "correct horse"


@dataclass(frozen=True)
class Project:
    """A served database with accounts."""

    url: str
    database: Any

    @property
    def admin_url(self) -> str:
        found: str = self.database.url("supabase_admin")
        return found

    def account(self) -> str:
        """Make an account and give its address."""
        email = f"ben-{uuid4().hex[:8]}@school.example"
        create_user(self.admin_url, email, PASSWORD)
        return email

    def sql(self, query: str, *values: Any) -> Any:
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            return conn.execute(query.encode(), values)


@pytest.fixture(scope="module")
def project(database: Any, free_port: Callable[[], int]) -> Iterator[Project]:
    secret = database.settings.jwt_secret
    verifier = TokenVerifier(secret)
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/auth/v1"
    auth = Auth(database.url("supabase_admin"), verifier, Signer(secret, issuer))
    rest = Rest(database.url("authenticator"), verifier)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        async with rest.running():
            yield

    routes = [Mount("/auth/v1", routes=auth.routes), Mount("/rest/v1", routes=rest.routes)]
    with serving(Starlette(routes=routes, lifespan=lifespan), port) as url:
        yield Project(url, database)


@pytest.fixture
def client(project: Project) -> Iterator[Client]:
    with httpx.Client() as transport:
        options = ClientOptions(httpx_client=transport, auto_refresh_token=False)
        yield create_client(project.url, project.database.settings.anon_key, options)


@pytest.fixture
def http(project: Project) -> Iterator[httpx.Client]:
    key = {"apikey": project.database.settings.anon_key}
    with httpx.Client(base_url=f"{project.url}/auth/v1", headers=key) as found:
        yield found


def sign_in(client: Client, email: str, password: str = PASSWORD) -> Any:
    return client.auth.sign_in_with_password({"email": email, "password": password})


def test_the_official_client_signs_in_and_is_that_person_over_rest(
    project: Project, client: Client
) -> None:
    email = project.account()
    signed_in = sign_in(client, email.upper())
    assert signed_in.user.email == email
    assert client.auth.get_user().user.id == signed_in.user.id
    assert client.rpc("create_owner", {"p_name": "School"}).execute().data["name"] == "School"
    rows = client.table("owner_member_list").select("owner, email").execute().data
    assert rows == [{"owner": "School", "email": email}]


def test_a_token_says_what_a_hosted_one_says(project: Project, client: Client) -> None:
    session = sign_in(client, project.account()).session
    claims = jwt.decode(
        session.access_token,
        project.database.settings.jwt_secret,
        algorithms=["HS256"],
        audience="authenticated",
        issuer=f"{project.url}/auth/v1",
    )
    assert set(claims) >= {
        *("iss", "aud", "exp", "iat", "sub", "role", "aal", "session_id", "email", "phone"),
        "is_anonymous",
    }
    assert claims["role"] == "authenticated"
    assert 3590 < claims["exp"] - time.time() <= 3600
    assert session.expires_in == 3600


def test_a_session_goes_on_with_its_refresh_token(project: Project, client: Client) -> None:
    first = sign_in(client, project.account()).session
    second = client.auth.refresh_session().session
    assert second.refresh_token != first.refresh_token
    assert client.auth.get_user().user.id == first.user.id
    # The answer to the first may never have come: for a moment it is still good.
    assert client.auth.refresh_session(first.refresh_token).session is not None


def test_a_refresh_token_that_was_used_long_ago_ends_the_session(
    project: Project, client: Client
) -> None:
    first = sign_in(client, project.account()).session
    second = client.auth.refresh_session().session
    project.sql("update auth.refresh_tokens set used_at = used_at - interval '1 minute'")
    for token, code in (
        (first.refresh_token, "refresh_token_already_used"),
        (second.refresh_token, "refresh_token_not_found"),
        ("made-up", "refresh_token_not_found"),
    ):
        with pytest.raises(AuthApiError) as caught:
            client.auth.refresh_session(token)
        assert caught.value.code == code


@pytest.mark.parametrize("scope", ["global", "local"])
def test_who_signs_out_is_out(project: Project, client: Client, scope: Any) -> None:
    session = sign_in(client, project.account()).session
    client.auth.sign_out({"scope": scope})
    assert client.auth.get_session() is None
    with pytest.raises(AuthApiError) as caught:
        client.auth.get_user(session.access_token)
    assert caught.value.code == "session_not_found"
    with pytest.raises(AuthApiError):
        client.auth.refresh_session(session.refresh_token)


def test_signing_out_here_leaves_others_alone(project: Project, client: Client) -> None:
    email = project.account()
    kept = sign_in(client, email).session
    sign_in(client, email)
    client.auth.sign_out({"scope": "local"})
    assert client.auth.get_user(kept.access_token).user.email == email
    client.auth.set_session(kept.access_token, kept.refresh_token)
    other = sign_in(client, email).session
    client.auth.sign_out({"scope": "others"})
    assert client.auth.get_user(other.access_token).user.email == email
    with pytest.raises(AuthApiError):
        client.auth.get_user(kept.access_token)


def test_a_wrong_password_and_an_unknown_person_look_the_same(
    project: Project, client: Client
) -> None:
    email = project.account()
    said = set()
    for who, password in (
        (email, "wrong horse"),
        ("nobody@school.example", PASSWORD),
        (email, PASSWORD + "x" * 80),
        ("x\0y", PASSWORD),
        (email, "horse\0"),
    ):
        with pytest.raises(AuthApiError) as caught:
            sign_in(client, who, password)
        said.add((caught.value.code, caught.value.message, caught.value.status))
    assert said == {("invalid_credentials", "Invalid login credentials", 400)}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("update auth.users set banned_until = now() + interval '1 day' where email = %s", None),
        ("update auth.users set deleted_at = now() where email = %s", "user_not_found"),
        ("delete from auth.users where email = %s", "session_not_found"),
    ],
)
def test_an_account_that_is_gone_lets_nobody_in(
    project: Project, client: Client, change: str, code: str | None
) -> None:
    email = project.account()
    session = sign_in(client, email).session
    project.sql(change, email)
    with pytest.raises(AuthApiError):
        sign_in(client, email)
    if code is not None:
        with pytest.raises(AuthApiError) as caught:
            client.auth.get_user(session.access_token)
        assert caught.value.code == code


def test_what_is_wrong_has_the_shape_of_the_hosted_answers(http: httpx.Client) -> None:
    old = http.post("/token?grant_type=password", json={"email": "a@b.c", "password": "nothing"})
    assert (old.status_code, old.json()) == (
        400,
        {
            "code": 400,
            "error_code": "invalid_credentials",
            "msg": "Invalid login credentials",
        },
    )
    version = {"X-Supabase-Api-Version": "2024-01-01"}
    new = http.post("/token?grant_type=password", json={}, headers=version)
    assert new.json() == {"code": "validation_failed", "message": "missing email"}
    assert new.headers["X-Supabase-Api-Version"] == "2024-01-01"


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "code"),
    [
        ("POST", "/token?grant_type=password", {"content": b"{"}, 400, "bad_json"),
        ("POST", "/token?grant_type=password", {"content": b"[1]"}, 400, "bad_json"),
        ("POST", "/token?grant_type=password", {"content": b"[" * 9999}, 400, "bad_json"),
        ("POST", "/token?grant_type=password", {"content": b"1" * 99999}, 413, "request_too_large"),
        ("POST", "/token?grant_type=password", {"json": {"email": 1}}, 400, "validation_failed"),
        ("POST", "/token?grant_type=magic", {"json": {}}, 400, "validation_failed"),
        ("POST", "/token", {"json": {}}, 400, "validation_failed"),
        ("GET", "/user", {}, 401, "no_authorization"),
        ("GET", "/user", {"headers": {"Authorization": "Bearer x.y.z"}}, 403, "bad_jwt"),
        ("POST", "/logout?scope=moon", {}, 400, "validation_failed"),
        ("POST", "/signup", {"json": {}}, 422, "signup_disabled"),
    ],
)
def test_a_wrong_request_is_refused(
    http: httpx.Client, method: str, path: str, more: dict[str, Any], status: int, code: str
) -> None:
    answer = http.request(method, path, **more)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


def test_a_token_of_nobody_s_account_is_nobody(project: Project, http: httpx.Client) -> None:
    settings = project.database.settings
    for claims, code in (
        ({"role": "authenticated", "sub": str(uuid4())}, "user_not_found"),
        ({"role": "authenticated", "sub": "device"}, "bad_jwt"),
        ({"role": "authenticated"}, "bad_jwt"),
        ({"role": "authenticated", "sub": str(uuid4()), "session_id": 5}, "bad_jwt"),
        ({"role": "authenticated", "sub": str(uuid4()), "exp": 1}, "bad_jwt"),
    ):
        token = jwt.encode({"exp": int(time.time()) + 60, **claims}, settings.jwt_secret)
        answer = http.get("/user", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["error_code"]) == (403, code)


def test_without_the_key_of_the_project_nothing_is_answered(project: Project) -> None:
    with httpx.Client(base_url=f"{project.url}/auth/v1") as http:
        assert http.get("/settings").status_code == 401
        assert http.get("/settings", headers={"apikey": "x"}).status_code == 401
        assert http.get("/health").status_code == 200


def test_passwords_and_tokens_cannot_be_read(project: Project, client: Client) -> None:
    email = project.account()
    session = sign_in(client, email).session
    with psycopg.connect(project.admin_url) as conn:
        rows = conn.execute(
            "select encrypted_password, (select string_agg(t::text, ',')"
            " from auth.refresh_tokens as t) from auth.users where email = %s",
            (email,),
        ).fetchall()
        held = conn.execute(
            "select r, t from unnest('{anon,authenticated,service_role}'::text[]) as r,"
            " unnest('{auth.users,auth.sessions,auth.refresh_tokens}'::text[]) as t"
            " where has_table_privilege(r, t, 'select')"
        ).fetchall()
    assert PASSWORD not in str(rows) and session.refresh_token not in str(rows)
    assert held == []


def test_accounts_are_made_listed_and_deleted(project: Project) -> None:
    email = project.account()
    assert find_user(project.admin_url, email)["email"] == email
    assert email in {row["email"] for row in list_users(project.admin_url)}
    for wrong, password in ((email, PASSWORD), ("ben", PASSWORD), ("a@b.c", "short")):
        with pytest.raises(UserError):
            create_user(project.admin_url, wrong, password)
    delete_user(project.admin_url, email)
    for act in (find_user, delete_user):
        with pytest.raises(UserError):
            act(project.admin_url, email)
