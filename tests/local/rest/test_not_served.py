"""What is not served, or switched off, says so as the hosted server does, and names it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from supabase import PostgrestAPIError


@pytest.mark.parametrize(
    ("method", "path", "accept", "named"),
    [
        ("GET", "/books?select=*,jobs(id)", "*/*", "embedded by select (jobs)"),
        ("GET", "/books?select=title,...jobs!inner(id)", "*/*", "embedded by select (jobs!inner)"),
        ("GET", "/books?jobs.id=eq.1", "*/*", "filters on embedded resources (jobs.id)"),
        ("GET", "/books?order=jobs(id)", "*/*", "an order by the column of an embedded resource"),
        ("GET", "/books", "text/csv", "answers in CSV"),
        ("GET", "/books", "application/vnd.pgrst.plan+json", "execution plans as answers"),
        ("GET", "/books", "application/geo+json", "answers in GeoJSON"),
        ("PUT", "/books?shelf=eq.a&number=eq.1", "*/*", "PUT"),
    ],
)
def test_what_is_not_served_is_named(
    http: httpx.Client, method: str, path: str, accept: str, named: str
) -> None:
    body = {"json": {}} if method == "PUT" else {}
    answer = http.request(method, path, headers={"Accept": accept}, **body)
    error = answer.json()

    assert (answer.status_code, error["code"]) == (400, "PGRST127")
    assert error["message"] == "Feature not implemented"
    assert named in error["details"]
    assert set(error) == {"code", "details", "hint", "message"}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/books?select=count()", 400, "PGRST123"),
        ("/books?select=shelf,number.sum()", 400, "PGRST123"),
        ("/books?select=n:number.max()::text", 400, "PGRST123"),
        ("/", 404, "PGRST126"),
        ("/a/b", 404, "PGRST125"),
    ],
)
def test_what_is_switched_off_is_told_as_hosted_tells_it(
    http: httpx.Client, path: str, status: int, code: str
) -> None:
    answer = http.get(path)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_the_official_client_understands_what_is_not_served(shop: Any) -> None:
    with pytest.raises(PostgrestAPIError) as caught:
        shop.client(shop.token()).table("books").select("*, jobs(id)").execute()

    assert (caught.value.code, caught.value.message) == ("PGRST127", "Feature not implemented")
    assert json.dumps(caught.value.details)
