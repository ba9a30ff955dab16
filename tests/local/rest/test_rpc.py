from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from supabase import AsyncClientOptions, PostgrestAPIError, acreate_client


@pytest.fixture(scope="module", autouse=True)
def jobs(shop: Any) -> None:
    with shop.connect() as owner:
        owner.execute(
            "insert into jobs (device_id) select d from unnest(array['d1', 'd1', 'd1', 'd2']) as d"
        )


def refused(call: Any) -> PostgrestAPIError:
    with pytest.raises(PostgrestAPIError) as caught:
        call.execute()
    return caught.value


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("add_up", {"a": 1, "b": 2}, 3),
        ("add_up", {"a": 1}, 11),
        ("add_up", {"a": "5"}, 15),
        ("add_up", {"a": None}, None),
        ("both_kinds", {"a": 1}, "a"),
        ("both_kinds", {"b": "x"}, "b"),
        ("numbers", {"n": 3}, [1, 2, 3]),
        ("pairs", {"n": 2}, [{"i": 1, "square": 1}, {"i": 2, "square": 4}]),
        ("pairs", {"n": 0}, []),
        ("echo", {"p_value": {"a": [1, {"b": None}], "c": "%s %(x)s"}}, None),
        ("echo", {"p_value": "text"}, "text"),
        ("join_up", {"p_items": ["a", "b,c", '"']}, 'a+b,c+"'),
        ("nothing", None, []),
    ],
)
def test_a_function_answers_as_its_type_says(
    shop: Any, name: str, arguments: Any, answer: Any
) -> None:
    if name == "echo" and answer is None:
        answer = arguments["p_value"]

    assert shop.client(shop.token()).rpc(name, arguments).execute().data == answer


def test_a_single_composite_is_an_object_and_row_security_holds(shop: Any) -> None:
    client = shop.client(shop.token("d1"))

    assert client.rpc("one_job", {"p_id": 1}).execute().data["device_id"] == "d1"
    assert client.rpc("one_job", {"p_id": 4}).execute().data["id"] is None


def test_a_volatile_function_writes_once_for_its_caller_only(shop: Any) -> None:
    client = shop.client(shop.token("d2"))
    arguments = {"p_device": "d2", "p_meta": {"k": [1, "ü"]}}

    first = client.rpc("claim_job", arguments).execute().data
    again = client.rpc("claim_job", arguments).execute().data
    foreign = client.rpc("claim_job", {"p_device": "d1"}).execute().data

    assert [(row["status"], row["payload"]) for row in first] == [("sent", {"k": [1, "ü"]})]
    assert (again, foreign) == ([], [])


def test_a_void_function_answers_204_without_a_body(shop: Any) -> None:
    with shop.http(shop.token()) as http:
        answer = http.post("/rpc/nothing", json={})

    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers


def test_a_get_passes_arguments_filters_order_and_limit(shop: Any) -> None:
    client = shop.client(shop.token())
    with shop.http(shop.token()) as http:
        filtered = http.get(
            "/rpc/pairs", params={"n": "9", "i": "gt.2", "order": "i.desc", "limit": "2"}
        )
        array = http.get("/rpc/join_up", params={"p_items": "{1,2}"})
        nested = http.get("/rpc/echo", params={"p_value": '{"a":1}'})

    assert client.rpc("add_up", {"a": 3}, get=True).execute().data == 13
    assert [row["i"] for row in filtered.json()] == [9, 8]
    assert array.json() == "1+2"
    assert nested.json() == {"a": 1}


def test_a_get_cannot_write(shop: Any) -> None:
    with shop.http(shop.token("d1")) as http:
        answer = http.get("/rpc/claim_job", params={"p_device": "d1"})

    assert (answer.status_code, answer.json()["code"]) == (405, "25006")


def test_select_on_a_post_narrows_the_rows(shop: Any) -> None:
    rows = shop.client(shop.token()).rpc("pairs", {"n": 3}).select("square").eq("i", 2).execute()

    assert rows.data == [{"square": 4}]


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        ("missing", {}, "PGRST202", "Could not find the function public.missing without param"),
        ("add_up", {"c": 1, "a": 2}, "PGRST202", "Could not find the function public.add_up(a, c)"),
        ("add_up", {}, "PGRST202", "Could not find the function public.add_up without parameters"),
        ("same_names", {"x": 1}, "PGRST203", "Could not choose the best candidate"),
        ("add_up", {"a": "one"}, "22P02", 'invalid input syntax for type integer: "one"'),
        ("add_up", {"a": {}}, "22P02", "invalid input syntax for type integer"),
        ("sleep_for", {"p_seconds": 5}, "57014", "canceling statement due to statement timeout"),
    ],
)
def test_a_call_that_cannot_be_is_refused(
    shop: Any, name: str, arguments: Any, code: str, message: str
) -> None:
    error = refused(shop.client(shop.token()).rpc(name, arguments))

    assert error.code == code
    assert str(error.message).startswith(message)


@pytest.mark.parametrize(
    ("sqlstate", "status"),
    [
        ("PT404", 404),
        ("PT422", 422),
        ("P0001", 400),
        ("23505", 409),
        ("55P03", 500),
        ("PTXYZ", 500),
    ],
)
def test_an_error_keeps_its_detail_and_hint_and_gets_its_status(
    shop: Any, sqlstate: str, status: int
) -> None:
    with shop.http(shop.token()) as http:
        answer = http.post("/rpc/refuse", json={"p_status": sqlstate})

    assert answer.status_code == status
    assert answer.headers["proxy-status"] == f"PostgREST; error={sqlstate}"
    assert answer.json() == {
        "code": sqlstate,
        "details": "device_not_found",
        "hint": "list them",
        "message": "no such device",
    }


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"x"', b'{"a": "\xff"}', b'{"\\ud800": 1}'])
def test_a_body_that_is_no_object_is_refused(shop: Any, body: bytes) -> None:
    with shop.http(shop.token(), **{"Content-Type": "application/json"}) as http:
        answer = http.post("/rpc/add_up", content=body)

    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST102")


def test_the_transaction_carries_the_request_and_the_settings_of_the_role(shop: Any) -> None:
    with shop.http(shop.token("d7"), **{"X-Agent": "pgfleet/1"}) as http:
        signed_in = http.post("/rpc/context", json={}).json()
    with shop.http() as http:
        nobody = http.get("/rpc/context").json()

    assert signed_in["claims"]["sub"] == "d7"
    assert {k: v for k, v in signed_in.items() if k != "claims"} == {
        "role": "authenticated",
        "method": "POST",
        "path": "/rpc/context",
        "agent": "pgfleet/1",
        "timeout": "8s",
        "search_path": '"public", "extensions"',
        "read_only": "on",
    }
    assert nobody["claims"] == {"role": "anon"}
    assert (nobody["role"], nobody["method"], nobody["timeout"]) == ("anon", "GET", "3s")


def test_a_function_may_set_the_status_and_headers_of_the_answer(shop: Any) -> None:
    with shop.http(shop.token()) as http:
        answer = http.post("/rpc/teapot", json={})

    assert (answer.status_code, answer.headers["x-brew"]) == (418, "earl grey")


def test_a_new_function_is_found_and_a_changed_one_is_called_anew(shop: Any) -> None:
    client = shop.client(shop.token())
    with shop.connect() as owner:
        owner.execute("create function public.fresh() returns integer language sql as 'select 1'")
        owner.execute("grant execute on function public.fresh() to authenticated")

    assert client.rpc("fresh").execute().data == 1


def test_the_asynchronous_client_works_as_well(shop: Any) -> None:
    async def ask() -> Any:
        async with httpx.AsyncClient() as transport:
            options = AsyncClientOptions(httpx_client=transport, auto_refresh_token=False)
            client = await acreate_client(shop.url, shop.settings.anon_key, options)
            client.postgrest.auth(shop.token())
            calls = [client.rpc("add_up", {"a": n}).execute() for n in range(30)]
            return [answer.data for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [n + 10 for n in range(30)]
