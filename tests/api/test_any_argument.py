# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Property tests: each argument either raises an error with its name, or becomes a valid request to FACEKI's host."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_faceki.api.endpoints.links import GenerateKycLink
from airflow_provider_faceki.api.endpoints.raw import RawCall
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.endpoints.reports import FetchPdfReport
from airflow_provider_faceki.api.endpoints.workflows import GetWorkflowRules
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.api.protocol.messages import HttpRequest
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.transport import http_transport as transport

BASE = "https://kyc.example:8443/prefix"
HERE = Service(base_url=BASE, pdf_report_path="/reports/{requestId}")

_TEXT = st.text(max_size=20) | st.sampled_from(
    (
        *(
            "",
            " ",
            "..",
            "/..",
            "../x",
            "%2e%2e",
            "a?b=c",
            "a#b",
            "//evil.example",
            "@evil.example",
            "\\evil",
        ),
        *("\r\nX: y", "\ud800", "\x00", "a" * 600, "{requestId}", "https://evil.example/"),
    )
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=5) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT | st.integers(), inner, max_size=3),
    max_leaves=6,
)
_PATHS = st.lists(
    st.sampled_from(
        ["/", "//", "..", ".", "%2e", "%2E%2e", "%2f", "%5c", "a", ":", "@", "?", "#", ";", "%", "%zz"]
    ),
    max_size=8,
).map(lambda parts: "/" + "".join(parts))


def _optional(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


CALLS = st.fixed_dictionaries(
    {"method": st.sampled_from(["GET", "POST", "put", "HEAD"]) | _ANYTHING, "path": _PATHS | _ANYTHING},
    optional={
        "params": _optional(st.dictionaries(_TEXT, _TEXT | st.integers()) | _ANYTHING),
        "json": _ANYTHING,
        "data": _optional(st.dictionaries(_TEXT, _TEXT) | _ANYTHING),
        "idempotent": _optional(st.booleans() | _ANYTHING),
    },
)
LINKS = st.fixed_dictionaries(
    {"workflow_id": _TEXT | _ANYTHING},
    optional={
        "record_identifier": _ANYTHING,
        "expires_in_minutes": st.integers() | _ANYTHING,
        "redirect_url": st.sampled_from(["https://a.example", "http://[", "https://"]) | _ANYTHING,
    },
)


def _request(make: Callable[[], Any]) -> HttpRequest | None:
    try:
        request: HttpRequest = make().request(HERE)
    except ValidationError:
        return None
    return request


def _check_url_below_base(request: HttpRequest) -> None:
    """Check that the final URL is the one of ``requests``, and, after normalisation, still below the base URL."""
    sent = transport._prepare(request, None)
    assert sent.url == requests.Request(request.method, request.url, params=list(request.query)).prepare().url
    parts = urlsplit(sent.url or "")
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "kyc.example:8443", "")
    path = posixpath.normpath(unquote(parts.path))
    assert path == "/prefix" or path.startswith("/prefix/")
    assert all("\n" not in value and "\r" not in value for value in sent.headers.values())


@given(CALLS)
def test_any_call(arguments: dict[str, Any]) -> None:
    request = _request(lambda: RawCall(**arguments))
    if request is not None:
        _check_url_below_base(request)
        assert isinstance(request.idempotent, bool)


@given(_PATHS)
def test_any_path(path: str) -> None:
    request = _request(lambda: RawCall("GET", path))
    if request is not None:
        _check_url_below_base(request)


@given(LINKS)
def test_any_link_request(arguments: dict[str, Any]) -> None:
    request = _request(lambda: GenerateKycLink(**arguments))
    if request is not None:
        _check_url_below_base(request)


@given(
    st.dictionaries(
        st.sampled_from(["request_id", "link", "record_identifier", "face_id"]), _TEXT | _ANYTHING, max_size=2
    )
)
def test_any_filter_of_records(arguments: dict[str, Any]) -> None:
    request = _request(lambda: FetchRecords(**arguments))
    if request is not None:
        _check_url_below_base(request)
        assert len(request.query) == 1


@given(st.dictionaries(st.sampled_from(["workflow_id", "link"]), _TEXT | _ANYTHING))
def test_any_filter_of_rules(arguments: dict[str, Any]) -> None:
    request = _request(lambda: GetWorkflowRules(**arguments))
    if request is not None:
        _check_url_below_base(request)


@given(_TEXT | _ANYTHING)
def test_any_report(request_id: Any) -> None:
    request = _request(lambda: FetchPdfReport(request_id))
    if request is not None:
        _check_url_below_base(request)
