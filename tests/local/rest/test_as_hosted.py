"""What the hosted REST server heeds and this one once did not, without a word."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

NOTES = ['a"b', "c", "d", "a,b", "x)y", 'say "hi"', "back\\slash"]


@pytest.fixture(autouse=True)
def books(shop: Any) -> None:
    with shop.connect() as owner:
        owner.execute("truncate books")
        for number, note in enumerate(NOTES, 1):
            owner.execute(
                "insert into books values ('notes', %s, %s, to_tsvector('english', %s), %s)",
                (
                    number,
                    note,
                    "the quick foxes" if number == 1 else "slow",
                    f"[{number},{number + 2})",
                ),
            )


def numbers(answer: httpx.Response) -> list[int]:
    assert answer.is_success, answer.text
    return sorted(row["number"] for row in answer.json())


# Lists


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ('(a"b,c)', [1, 2]),
        ('(c,a"b,d)', [1, 2, 3]),
        ('("a,b",d)', [3, 4]),
        ('("a\\"b",c)', [1, 2]),
        ('("x)y")', [5]),
        ('("c"x,d)', [3]),
        ('(say "hi",c)', [2, 6]),
        ('("back\\\\slash")', [7]),
        ("(back\\slash)", [7]),
        ("()", []),
        ('("")', []),
    ],
)
def test_a_quote_inside_an_element_is_a_letter(
    http: httpx.Client, listed: str, found: list[int]
) -> None:
    others = [n for n in range(1, len(NOTES) + 1) if n not in found]

    assert numbers(http.get("/books", params={"title": f"in.{listed}"})) == found
    assert numbers(http.get("/books", params={"title": f"not.in.{listed}"})) == others
    assert numbers(http.get("/books", params={"or": f"(title.in.{listed})"})) == found


def test_a_delete_takes_what_is_listed_and_nothing_more(http: httpx.Client) -> None:
    gone = http.delete(
        "/books",
        params={"title": 'not.in.(c,a"b,d)'},
        headers={"Prefer": "return=representation"},
    )

    assert numbers(gone) == [4, 5, 6, 7]
    assert numbers(http.get("/books")) == [1, 2, 3]


@pytest.mark.parametrize("listed", ["(a,b", "a,b)", "(a)b,c)", "(x)y)"])
def test_a_list_that_does_not_end_where_it_should_is_refused(
    http: httpx.Client, listed: str
) -> None:
    answer = http.delete("/books", params={"title": f"in.{listed}"})

    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST100")


# Ranges and counts


@pytest.mark.parametrize(
    ("query", "span", "found", "content_range"),
    [
        ("", "0-1", [1, 2], "0-1/*"),
        ("", "2-", [3, 4, 5, 6, 7], "2-6/*"),
        ("", "5-100", [6, 7], "5-6/*"),
        ("&limit=3", "1-5", [2, 3], "1-2/*"),
        ("&offset=2", "0-3", [3, 4], "2-3/*"),
        ("", "7-9", [], "*/*"),
        ("", "nonsense", [1, 2, 3, 4, 5, 6, 7], "0-6/*"),
        ("&limit=0", "0-1", [], "*/*"),
    ],
)
def test_a_range_header_is_heeded(
    http: httpx.Client, query: str, span: str, found: list[int], content_range: str
) -> None:
    answer = http.get(f"/books?order=number{query}", headers={"Range": span, "Range-Unit": "items"})

    assert [row["number"] for row in answer.json()] == found
    assert answer.headers["content-range"] == content_range


def test_a_range_with_a_count_is_partial_content(http: httpx.Client) -> None:
    part = http.get("/books", headers={"Range": "2-3", "Prefer": "count=exact"})
    whole = http.get("/books", headers={"Range": "0-9", "Prefer": "count=exact"})
    head = http.head("/books", headers={"Range": "2-3", "Prefer": "count=exact"})

    assert (part.status_code, part.headers["content-range"]) == (206, "2-3/7")
    assert (whole.status_code, whole.headers["content-range"]) == (200, "0-6/7")
    assert head.headers["content-range"] == "0-6/7"


@pytest.mark.parametrize(("query", "span"), [("", "5-2"), ("limit=2", "2-9")])
def test_a_range_that_holds_nothing_is_refused(http: httpx.Client, query: str, span: str) -> None:
    answer = http.get(f"/books?{query}", headers={"Range": span})

    assert (answer.status_code, answer.json()["code"]) == (416, "PGRST103")
    assert "lower boundary" in answer.json()["details"]


def test_a_range_of_a_function_is_heeded(http: httpx.Client) -> None:
    answer = http.get("/rpc/numbers?n=9", headers={"Range": "2-4", "Prefer": "count=exact"})

    assert (answer.json(), answer.headers["content-range"]) == ([3, 4, 5], "2-4/9")


def test_planned_counts_are_numbers(shop: Any) -> None:
    with shop.connect() as owner:
        owner.execute("insert into books select 'many', n, 'x' from generate_series(1, 3000) as n")
        owner.execute("analyze books")
    table = shop.client(shop.token()).table("books")

    planned = table.select("*", count="planned").eq("shelf", "many").limit(1).execute()
    few = table.select("*", count="estimated").eq("shelf", "notes").limit(1).execute()
    many = table.select("*", count="estimated").eq("shelf", "many").limit(1).execute()

    assert planned.count == pytest.approx(3000, rel=0.2)
    assert few.count == 7
    assert many.count == pytest.approx(3000, rel=0.2)


# Preferences


def change(http: httpx.Client, method: str, most: int, handling: str) -> httpx.Response:
    body = {"json": {"title": "new"}} if method == "PATCH" else {}
    prefer = f"handling={handling}, max-affected={most}, return=representation"
    return http.request(method, "/books?number=lte.3", headers={"Prefer": prefer}, **body)


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_change_of_too_many_rows_is_undone(http: httpx.Client, method: str) -> None:
    answer = change(http, method, 2, "strict")

    assert (answer.status_code, answer.json()) == (
        400,
        {
            "code": "PGRST124",
            "details": "The query affects 3 rows",
            "hint": None,
            "message": "Query result exceeds max-affected preference constraint",
        },
    )
    assert len(http.get("/books?title=eq.new").json()) == 0
    assert len(http.get("/books").json()) == 7


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_change_of_as_many_rows_as_may_be_is_done(http: httpx.Client, method: str) -> None:
    answer = change(http, method, 3, "strict")

    assert numbers(answer) == [1, 2, 3]
    assert "max-affected=3" in answer.headers["preference-applied"]
    assert "handling=strict" in answer.headers["preference-applied"]


def test_a_lenient_limit_limits_nothing(http: httpx.Client) -> None:
    answer = change(http, "PATCH", 1, "lenient")

    assert len(answer.json()) == 3
    assert "max-affected" not in answer.headers["preference-applied"]


def test_a_function_that_returns_one_row_takes_no_limit(http: httpx.Client) -> None:
    headers = {"Prefer": "handling=strict, max-affected=1"}
    one = http.post("/rpc/add_up", json={"a": 1}, headers=headers)
    many = http.post("/rpc/numbers", json={"n": 2}, headers=headers)

    assert (one.status_code, one.json()["code"]) == (400, "PGRST128")
    assert (many.status_code, many.json()["code"]) == (400, "PGRST124")


def test_unknown_preferences_are_an_error_to_the_strict_alone(http: httpx.Client) -> None:
    prefer = "count=exact, colour=red, tx=commit, timezone=Mars/Olympus"
    lenient = http.get("/books", headers={"Prefer": prefer})
    strict = http.get("/books", headers={"Prefer": f"{prefer}, handling=strict"})

    assert lenient.status_code == 200
    assert (strict.status_code, strict.json()["code"]) == (400, "PGRST122")
    assert strict.json()["details"] == "Invalid preferences: colour=red, timezone=Mars/Olympus"


def test_a_time_zone_is_heeded(shop: Any, http: httpx.Client) -> None:
    with shop.connect() as owner:
        owner.execute("insert into jobs (device_id) values ('d1')")
    answer = http.get(
        "/jobs?limit=1&select=created_at", headers={"Prefer": "timezone=Asia/Kathmandu"}
    )

    assert answer.json()[0]["created_at"].endswith("+05:45")
    assert answer.headers["preference-applied"] == "timezone=Asia/Kathmandu"


# Answers


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("application/vnd.pgrst.array+json;nulls=stripped", [{"shelf": "s", "number": 1}]),
        ("application/vnd.pgrst.object+json;nulls=stripped", {"shelf": "s", "number": 1}),
        ("application/vnd.pgrst.array+json", [{"shelf": "s", "number": 1, "span": None}]),
        ("application/vnd.pgrst.object", {"shelf": "s", "number": 1, "span": None}),
    ],
)
def test_nulls_are_left_out_when_asked(http: httpx.Client, accept: str, answered: Any) -> None:
    http.post("/books", json={"shelf": "s", "number": 1, "title": "t"})
    found = http.get("/books?shelf=eq.s&select=shelf,number,span", headers={"Accept": accept})
    made = http.patch(
        "/books?shelf=eq.s&select=shelf,number,span",
        json={"title": "u"},
        headers={"Accept": accept, "Prefer": "return=representation"},
    )

    assert found.json() == made.json() == answered
    if "stripped" in accept:
        assert found.headers["content-type"] == f"{accept}; charset=utf-8"


@pytest.mark.parametrize(
    ("row", "location"),
    [
        ({"shelf": "a b&c", "number": 7}, "/books?shelf=eq.a%20b%26c&number=eq.7"),
        ({"shelf": "ü", "number": -1}, "/books?shelf=eq.%C3%BC&number=eq.-1"),
    ],
)
def test_a_new_row_tells_where_it_is(http: httpx.Client, row: Any, location: str) -> None:
    answer = http.post(
        "/books", json={**row, "title": "t"}, headers={"Prefer": "return=headers-only"}
    )

    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["location"] == location
    assert [r["title"] for r in http.get(location).json()] == ["t"]


def test_only_one_new_row_with_a_key_tells_where_it_is(shop: Any, http: httpx.Client) -> None:
    prefer = {"Prefer": "return=headers-only"}
    two = [{"shelf": "s", "number": n, "title": "t"} for n in (1, 2)]
    minimal = http.post("/books", json={"shelf": "s", "number": 3, "title": "t"})
    with shop.http(**prefer) as nobody:
        keyless = nobody.post("/drop_box", json={"id": 1})

    assert "location" not in http.post("/books", json=two, headers=prefer).headers
    assert "location" not in minimal.headers
    assert (keyless.status_code, "location" in keyless.headers) == (201, False)


def test_an_update_tells_how_many_rows_it_changed(http: httpx.Client) -> None:
    headers = {"Prefer": "count=exact"}
    three = http.patch("/books?number=lte.3", json={"title": "n"}, headers=headers)
    none = http.patch("/books?number=eq.99", json={"title": "n"}, headers=headers)

    assert three.headers["content-range"] == "0-2/3"
    assert none.headers["content-range"] == "*/0"


# Functions


@pytest.mark.parametrize(
    ("name", "media", "body", "answered"),
    [
        ("whole_json", "application/json", b'{"a": [1, null]}', {"a": [1, None]}),
        ("whole_json", "application/json", b"[1, 2]", [1, 2]),
        ("whole_json", "application/json", b'"x"', "x"),
        ("whole_jsonb", "application/json", b'{"a": 1}', "object"),
        ("whole_jsonb", "application/json; charset=utf-8", b"[]", "array"),
        ("whole_text", "text/plain", "grün".encode(), "GRÜN"),
        ("whole_bytes", "application/octet-stream", b"\x00\xff\x01", 3),
        ("named_or_whole", "application/json", b'{"a": 1}', "named"),
        ("named_or_whole", "application/json", b'{"b": 1}', "whole"),
        ("named_or_whole", "application/json", b"[1]", "whole"),
    ],
)
def test_a_function_with_one_unnamed_argument_gets_the_body_whole(
    http: httpx.Client, name: str, media: str, body: bytes, answered: Any
) -> None:
    answer = http.post(f"/rpc/{name}", content=body, headers={"Content-Type": media})

    assert (answer.status_code, answer.json()) == (200, answered)


@pytest.mark.parametrize(
    ("name", "media", "code"),
    [
        ("whole_text", "application/json", "PGRST102"),
        ("whole_json", "text/plain", "PGRST202"),
        ("add_up", "text/plain", "PGRST202"),
        ("context", "text/plain", "PGRST102"),
    ],
)
def test_a_body_of_another_kind_finds_no_function(
    http: httpx.Client, name: str, media: str, code: str
) -> None:
    answer = http.post(f"/rpc/{name}", content=b'"x"', headers={"Content-Type": media})

    assert answer.json()["code"] == code


def test_a_form_is_an_object_of_texts(http: httpx.Client) -> None:
    answer = http.post("/rpc/add_up", data={"a": "4", "b": "5"})

    assert answer.json() == 9


# Operators


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("summary=fts.fox", [1]),
        ("summary=fts(english).fox %26 quick", [1]),
        ("summary=plfts(english).quick fox", [1]),
        ("summary=phfts(english).foxes quick", []),
        ("summary=wfts(english).fox -slow", [1]),
        ("summary=not.fts.slow", [1]),
        ("title=fts(simple).hi", [6]),
        ("title=like(any).{c,d,x*}", [2, 3, 5]),
        ("title=like(all).{*a*,*b*}", [1, 4, 7]),
        ("number=eq(any).{1,3}", [1, 3]),
        ("number=not.eq(any).{1,3}", [2, 4, 5, 6, 7]),
        ("number=gt(all).{4,5}", [6, 7]),
        ("title=imatch(any).{^C$,^D$}", [2, 3]),
        ("span=sl.[5,6)", [1, 2, 3]),
        ("span=sr.[1,4)", [4, 5, 6, 7]),
        ("span=nxr.[1,4)", [1, 2]),
        ("span=nxl.[6,9)", [6, 7]),
        ("span=adj.[1,3)", [3]),
        ("and=(number.eq(any).{1,2},title.eq.c)", [2]),
    ],
)
def test_every_operator_of_the_hosted_server_works(
    http: httpx.Client, query: str, found: list[int]
) -> None:
    assert numbers(http.get(f"/books?{query}")) == found
