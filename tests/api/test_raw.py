# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The generic call: its requests contain exactly the given arguments."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from http import HTTPMethod
from typing import Any

import pytest

from airflow_provider_faceki.api.endpoints.raw import RawCall
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.messages import HttpRequest
from airflow_provider_faceki.api.service import Service

ACCEPT = ("accept", "application/json")
JSON = ("content-type", "application/json")
FORM = ("content-type", "application/x-www-form-urlencoded")
HERE = Service(base_url="https://kyc.example.com/prefix")
CANARY = "canary-4711"


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        pytest.param(
            RawCall("GET", "/a/b"),
            HttpRequest("GET", "https://kyc.example.com/prefix/a/b", (), (ACCEPT,), idempotent=True),
            id="get",
        ),
        pytest.param(
            RawCall("get", "/"),
            HttpRequest("GET", "https://kyc.example.com/prefix/", (), (ACCEPT,), idempotent=True),
            id="small letters",
        ),
        pytest.param(
            RawCall(HTTPMethod.HEAD, "/a"),
            HttpRequest("HEAD", "https://kyc.example.com/prefix/a", (), (ACCEPT,), idempotent=True),
            id="head",
        ),
        pytest.param(
            RawCall("GET", "/a", params={"t": "ü &", "n": 5, "f": 0.5, "b": True, "o": False, "none": None}),
            HttpRequest(
                "GET",
                "https://kyc.example.com/prefix/a",
                (("t", "ü &"), ("n", "5"), ("f", "0.5"), ("b", "true"), ("o", "false")),
                (ACCEPT,),
                idempotent=True,
            ),
            id="query",
        ),
        pytest.param(
            RawCall("POST", "/a", json={"ü": [1, None, True, 0.5]}),
            HttpRequest(
                "POST",
                "https://kyc.example.com/prefix/a",
                (),
                (JSON, ACCEPT),
                '{"ü":[1,null,true,0.5]}'.encode(),
            ),
            id="json",
        ),
        pytest.param(
            RawCall("PUT", "/a", json=[]),
            HttpRequest("PUT", "https://kyc.example.com/prefix/a", (), (JSON, ACCEPT), b"[]"),
            id="empty json is a body",
        ),
        pytest.param(
            RawCall("POST", "/a", data={"t": "ü &", "n": 5, "b": True, "none": None}),
            HttpRequest(
                "POST",
                "https://kyc.example.com/prefix/a",
                (),
                (FORM, ACCEPT),
                b"t=%C3%BC+%26&n=5&b=true",
            ),
            id="form",
        ),
        pytest.param(
            RawCall("DELETE", "/a", idempotent=True),
            HttpRequest("DELETE", "https://kyc.example.com/prefix/a", (), (ACCEPT,), idempotent=True),
            id="declared idempotent",
        ),
        pytest.param(
            RawCall("GET", "/a", idempotent=False),
            HttpRequest("GET", "https://kyc.example.com/prefix/a", (), (ACCEPT,)),
            id="declared not idempotent",
        ),
    ],
)
def test_requests(call: RawCall, request_: HttpRequest) -> None:
    assert call.request(HERE) == request_


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_unsafe_methods_are_not_idempotent_by_default(method: str) -> None:
    assert not RawCall(method, "/a").request().idempotent


def test_the_result_is_the_unwrapped_document() -> None:
    assert RawCall("GET", "/a").read(Payload([1], {"result": [1]})) == [1]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/", id="root"),
        pytest.param("/a/b.c~d-e_f", id="plain"),
        pytest.param("/a/%C3%BC", id="encoded"),
        pytest.param("/a/b;v=1,2(3)!$&'*+=:@x", id="other signs"),
        pytest.param("/a/..b/c..", id="dots in names"),
        pytest.param("/a//b/", id="empty parts"),
    ],
)
def test_paths(path: str) -> None:
    assert RawCall("GET", path).request(HERE).url == f"https://kyc.example.com/prefix{path}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"method": "TRACE"}, "method must be one of GET, HEAD, ", id="another method"),
        pytest.param({"method": "GET /canary-4711"}, "method must be one of", id="more than a method"),
        pytest.param({"method": b"GET"}, "method must be one of", id="bytes for a method"),
        pytest.param({"method": None}, "method must be one of", id="no method"),
        pytest.param({"path": "a"}, "path must begin with /", id="relative"),
        pytest.param({"path": ""}, "path must begin with /", id="no path"),
        pytest.param({"path": 5}, "path must begin with /", id="number for a path"),
        pytest.param({"path": "https://canary-4711.example/"}, "path must begin with /", id="another host"),
        pytest.param({"path": "//canary-4711.example/"}, "path must stay below", id="another host, slashes"),
        pytest.param({"path": "/a?link=canary-4711"}, "path must begin with /", id="query"),
        pytest.param({"path": "/a#canary-4711"}, "path must begin with /", id="fragment"),
        pytest.param({"path": "/canary 4711"}, "path must begin with /", id="space"),
        pytest.param({"path": "/canary-4711\n"}, "path must begin with /", id="line end"),
        pytest.param({"path": "/\\canary-4711"}, "path must begin with /", id="backslash"),
        pytest.param({"path": "/ü"}, "path must begin with /", id="not ASCII"),
        pytest.param({"path": "/.."}, "path must stay below", id="up"),
        pytest.param({"path": "/a/../../canary-4711"}, "path must stay below", id="up and up"),
        pytest.param({"path": "/a/%2e%2E/canary-4711"}, "path must stay below", id="up, encoded"),
        pytest.param({"path": "/a%2f..%2Fcanary-4711"}, "path must stay below", id="slashes encoded"),
        pytest.param({"json": {}, "data": {}}, "give json or data, not both", id="two bodies"),
        pytest.param({"params": [("a", 1)]}, "params must be a mapping or None, not list", id="pairs"),
        pytest.param({"params": CANARY}, "params must be a mapping or None, not str", id="text"),
        pytest.param({"params": {"a": [CANARY]}}, "params['a'] must be text, a number", id="list in query"),
        pytest.param({"params": {"a": b"4711"}}, "params['a'] must be text, a number", id="bytes in query"),
        pytest.param({"params": {"a": Decimal(4711)}}, "params['a'] must be text", id="decimal in query"),
        pytest.param({"params": {"a": float("nan")}}, "params['a'] must be a finite", id="NaN in query"),
        pytest.param({"params": {"a": float("inf")}}, "params['a'] must be a finite", id="infinity in query"),
        pytest.param(
            {"params": {"a": f"{CANARY}\ud800"}},
            "params['a'] must be text that can be encoded as UTF-8",
            id="half",
        ),
        pytest.param(
            {"params": {"a": 10**5000}},
            "params['a'] must be text that can be encoded as UTF-8",
            id="huge number",
        ),
        pytest.param(
            {"params": {5: "x"}}, "params: each key must be text that can be encoded", id="number for a name"
        ),
        pytest.param(
            {"params": {"\ud800": CANARY}},
            "params: each key must be text that can be encoded",
            id="half a name",
        ),
        pytest.param({"data": {"a": {"b": CANARY}}}, "data['a'] must be text, a number", id="object in form"),
        pytest.param(
            {"data": {"a": "\udfff4711"}},
            "data['a'] must be text that can be encoded as UTF-8",
            id="half in form",
        ),
        pytest.param({"data": "a=4711"}, "data must be a mapping or None, not str", id="text for a form"),
        pytest.param({"idempotent": "False"}, "idempotent must be True, False or None, not str", id="a word"),
        pytest.param({"idempotent": 1}, "idempotent must be True, False or None, not int", id="one"),
    ],
)
def test_an_invalid_raw_call_is_rejected(arguments: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RawCall(**{"method": "GET", "path": "/a", **arguments})
    assert str(caught.value).startswith(message)
    assert "4711" not in str(caught.value)


def _loop() -> list[object]:
    loop: list[object] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"a": {CANARY}}, id="set"),
        pytest.param({"a": b"4711"}, id="bytes"),
        pytest.param({("a", "b"): CANARY}, id="tuple for a name"),
        pytest.param([float("nan")], id="NaN"),
        pytest.param([f"{CANARY}\ud800"], id="half a character"),
        pytest.param([10**5000], id="huge number"),
        pytest.param(_loop(), id="itself"),
    ],
)
def test_a_body_that_is_not_json_serializable_is_rejected(document: Any) -> None:
    with pytest.raises(
        ValidationError, match="^json contains a value that cannot be written as JSON$"
    ) as caught:
        RawCall("POST", "/a", json=document).request()
    assert caught.value.__context__ is None


def test_the_repr_of_a_raw_call_hides_its_content() -> None:
    call = RawCall("POST", f"/{CANARY}", params={"a": CANARY}, json={"a": CANARY})
    assert repr(call) == "<RawCall POST>"
    assert "application" not in repr(call.request())
