# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Values of Connections: the meaning of valid values, and the errors of invalid values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.api.service import AuthFlow
from airflow_provider_faceki.connection import schema as form
from airflow_provider_faceki.connection.schema import ConnectionSettings
from tests.provider.connections import LONG_KEY, SECRET, read, refused


def test_nothing_but_id_and_secret_means_the_documented_service() -> None:
    found = read()
    assert found == ConnectionSettings(
        conn_id="kyc",
        base_url="https://sdk.faceki.com",
        client_id="client-7",
        client_secret=SECRET,
        auth_flow=AuthFlow.GENERATE_TOKEN,
        timeout=30,
        upload_timeout=120,
        max_attempts=4,
        max_wait=30,
        token_store="file",
        workflow_id=None,
        verify=True,
        proxies=None,
        records_path="/api/v3/kyc_verification",
        pdf_report_path=None,
        addon_url="https://addon.faceki.com",
        max_image_bytes=10 * 1024 * 1024,
        max_concurrency=32,
        max_requests_per_second=None,
        max_charged_calls=None,
        webhook_token=None,
        webhook_token_previous=None,
        webhook_hmac_secret=None,
        webhook_hmac_header=None,
        pii_hash_secret=None,
        auth_header="authorization",
        auth_scheme="Bearer",
        request_id_filter="requestId",
        link_filter="link",
        record_identifier_filter="record_identifier",
        face_id_filter="face_id",
        null_result="error",
        pdf_report_method="GET",
        portal_record_url=None,
        webhook_hmac_timestamp_header=None,
        webhook_statuses=None,
        webhook_max_per_day=10_000,
        webhook_request_id_field="requestId",
        webhook_status_field="status",
    )
    assert found.service == api.Service()


@pytest.mark.parametrize("given", ["declined, ACCEPTED", ["DECLINED", "Accepted"]], ids=["text", "list"])
def test_statuses_in_either_form(given: object) -> None:
    assert read(extra={"webhook_statuses": given}).webhook_statuses == ("ACCEPTED", "DECLINED")


@pytest.mark.parametrize("empty", [pytest.param(None, id="null"), pytest.param("", id="empty")])
def test_null_and_empty_mean_not_set(empty: str | None) -> None:
    extra = dict.fromkeys(form.EXTRA_FIELDS, empty)
    assert read(host=empty, schema=empty, port=0, extra=extra) == read()


@pytest.mark.parametrize(
    ("host", "port", "schema", "meant"),
    [
        pytest.param("sdk.faceki.com", None, None, "https://sdk.faceki.com", id="no scheme"),
        pytest.param("https://sdk.faceki.com/", None, None, "https://sdk.faceki.com", id="slash at the end"),
        pytest.param("h.example/a/v1//", None, None, "https://h.example/a/v1", id="path, no scheme"),
        pytest.param("HTTPS://H.Example/Path", None, None, "https://h.example/Path", id="case"),
        pytest.param("https://h.example:443", None, None, "https://h.example", id="usual port"),
        pytest.param("https://h.example:8443/v1", None, None, "https://h.example:8443/v1", id="other port"),
        pytest.param("h.example/v1", 8443, None, "https://h.example:8443/v1", id="port field"),
        pytest.param("h.example:1", 8443, None, "https://h.example:1", id="port in the host counts"),
        pytest.param("h.example", 0, None, "https://h.example", id="port 0 is none"),
        pytest.param(None, 8443, None, "https://sdk.faceki.com:8443", id="port of the default host"),
        pytest.param("h.example", None, "https", "https://h.example", id="schema https"),
        pytest.param("localhost", 8080, "http", "http://localhost:8080", id="schema http"),
        pytest.param("https://localhost", None, "http", "https://localhost", id="scheme in the host counts"),
        pytest.param("http://localhost:8080", None, None, "http://localhost:8080", id="http to localhost"),
        pytest.param("http://127.9.9.9", None, None, "http://127.9.9.9", id="http to 127/8"),
        pytest.param("http://[::1]:80", None, None, "http://[::1]", id="http to ::1"),
        pytest.param("http://::1", 8080, None, "http://[::1]:8080", id="as a URI leaves [::1]"),
        pytest.param("https://10.0.0.7", None, None, "https://10.0.0.7", id="address"),
        pytest.param("my_proxy.local", None, None, "https://my_proxy.local", id="underscore"),
    ],
)
def test_base_url(host: str | None, port: int | None, schema: str | None, meant: str) -> None:
    assert read(host=host, port=port, schema=schema).base_url == meant


@pytest.mark.parametrize(
    ("host", "because"),
    [
        pytest.param("http://sdk.faceki.com", "unencrypted", id="http to elsewhere"),
        pytest.param("http://127.1", "no usable host", id="half an address"),
        pytest.param("http://localhost.example", "unencrypted", id="like localhost"),
        pytest.param("http://0x7f.0.0.1", "unencrypted", id="hexadecimal address"),
        pytest.param("ftp://h.example", "another scheme", id="ftp"),
        pytest.param("https://", "no usable host", id="no host"),
        pytest.param("/api", "no usable host", id="path only"),
        pytest.param("https:///api", "no usable host", id="no host but a path"),
        pytest.param(f"https://me:{SECRET}@h.example", "user name", id="user and password"),
        pytest.param("https://127.0.0.1@h.example", "user name", id="looks like loopback"),
        pytest.param(f"https://h.example?key={SECRET}", "query", id="query"),
        pytest.param("https://h.example#part", "fragment", id="fragment"),
        pytest.param("https://h.example:0", "no such port", id="port 0"),
        pytest.param("https://h.example:65536", "no such port", id="port too high"),
        pytest.param("https://h.example:https", "no usable host", id="port is a word"),
        pytest.param("https://h.example:", "no usable host", id="port missing"),
        pytest.param("https://a..b", "no usable host", id="empty label"),
        pytest.param("https://-a.example", "no usable host", id="leading hyphen"),
        pytest.param("https://café.example", "no usable host", id="not ASCII"),
        pytest.param(" https://h.example", "no usable host", id="space before"),
        pytest.param("https://h.example\n", "no usable host", id="newline after"),
        pytest.param("https://h.example\\@evil.example", "user name", id="backslash"),
        pytest.param("https://h.example/../admin", "path", id="climbing path"),
        pytest.param("https://h.example/a b", "path", id="space in the path"),
        pytest.param("https://[::1", "no usable host", id="half a bracket"),
        pytest.param("https://[1.2.3.4]", "no usable host", id="IPv4 in brackets"),
        pytest.param("https://" + "a" * 3000, "aaa…; allowed", id="endless"),
    ],
)
@pytest.mark.parametrize("field", ["host", "addon_url"])
def test_urls_that_are_refused(host: str, because: str, field: str) -> None:
    text = refused(host=host) if field == "host" else refused(extra={field: host})
    assert field in text
    assert because in text
    assert "https://host, optionally with a port and a path" in text


@pytest.mark.parametrize(
    ("extra", "attribute", "meant"),
    [
        pytest.param({"timeout": 7}, "timeout", 7.0, id="whole number"),
        pytest.param({"timeout": 0.5}, "timeout", 0.5, id="fraction"),
        pytest.param({"timeout": "7.5"}, "timeout", 7.5, id="as a URI has it"),
        pytest.param({"timeout": " 7 "}, "timeout", 7.0, id="space around a number"),
        pytest.param({"timeout": "1e1"}, "timeout", 10.0, id="exponent"),
        pytest.param({"timeout": 600}, "timeout", 600.0, id="longest"),
        pytest.param({"upload_timeout": 3600}, "upload_timeout", 3600.0, id="longest upload"),
        pytest.param({"max_attempts": 1}, "max_attempts", 1, id="no second attempt"),
        pytest.param({"max_attempts": 20.0}, "max_attempts", 20, id="most attempts, as a float"),
        pytest.param({"max_wait": 0.1}, "max_wait", 0.1, id="short wait"),
        pytest.param({"max_requests_per_second": 0.5}, "max_requests_per_second", 0.5, id="slow"),
        pytest.param({"max_concurrency": "8"}, "max_concurrency", 8, id="concurrency"),
        pytest.param({"max_image_bytes": 1}, "max_image_bytes", 1, id="tiny images"),
        pytest.param({"token_store": "memory"}, "token_store", "memory", id="memory"),
        pytest.param(
            {"token_store": "s3://aws_x@kyc/a/b"}, "token_store", "s3://aws_x@kyc/a/b", id="object storage"
        ),
        pytest.param({"token_store": "gs://kyc"}, "token_store", "gs://kyc", id="bucket"),
        pytest.param({"token_store": "/mnt/x"}, "token_store", "/mnt/x", id="directory"),
        pytest.param(
            {"token_store": "file:///mnt/x"}, "token_store", "file:///mnt/x", id="directory as a URI"
        ),
        pytest.param({"workflow_id": "wf 1"}, "workflow_id", "wf 1", id="workflow"),
        pytest.param({"verify": False}, "verify", False, id="false"),
        pytest.param({"verify": "False"}, "verify", False, id="False as text"),
        pytest.param({"verify": "true"}, "verify", True, id="true as text"),
        pytest.param(
            {"proxies": {"https": "http://p.example:3128", "http": "p.example"}},
            "proxies",
            (("http", "http://p.example"), ("https", "http://p.example:3128")),
            id="proxies",
        ),
        pytest.param(
            {"proxies": '{"https": "http://me:p%40ss@p.example:3128/", "http": null}'},
            "proxies",
            (("https", "http://me:p%40ss@p.example:3128/"),),
            id="proxies as text",
        ),
        pytest.param({"proxies": {}}, "proxies", (), id="no proxy"),
        pytest.param({"proxies": "{}"}, "proxies", (), id="no proxy, as text"),
        pytest.param({"proxies": {"https": ""}}, "proxies", (), id="no proxy for https"),
        pytest.param({"proxies": {"https": None, "http": ""}}, "proxies", (), id="no proxy for either"),
        pytest.param(
            {"records_path": "/kycverify/api/kycverify/records"},
            "records_path",
            "/kycverify/api/kycverify/records",
            id="the other records path",
        ),
        pytest.param(
            {"pdf_report_path": "/r/{requestId}.pdf"}, "pdf_report_path", "/r/{requestId}.pdf", id="PDF path"
        ),
        pytest.param(
            {"portal_record_url": "https://portal.example:8443/#/records/{requestId}?tab=a%20b"},
            "portal_record_url",
            "https://portal.example:8443/#/records/{requestId}?tab=a%20b",
            id="record page",
        ),
        pytest.param({"max_charged_calls": "50"}, "max_charged_calls", 50, id="charged calls as text"),
        pytest.param(
            {"pdf_report_path": "/pdf?id={requestId}&a=1"},
            "pdf_report_path",
            "/pdf?id={requestId}&a=1",
            id="PDF path with a query",
        ),
        pytest.param({"auth_header": "X-Access-Token"}, "auth_header", "X-Access-Token", id="token header"),
        pytest.param({"auth_scheme": "Token"}, "auth_scheme", "Token", id="token scheme"),
        pytest.param({"auth_scheme": "none"}, "auth_scheme", "", id="token alone"),
        pytest.param({"link_filter": "linkId"}, "link_filter", "linkId", id="filter name"),
        pytest.param(
            {"request_id_filter": "/kycverify/records?requestId={requestId}"},
            "request_id_filter",
            "/kycverify/records?requestId={requestId}",
            id="filter with a path of its own",
        ),
        pytest.param({"null_result": "no_record"}, "null_result", "no_record", id="null"),
        pytest.param({"pdf_report_method": "POST"}, "pdf_report_method", "POST", id="PDF by POST"),
        pytest.param({"webhook_status_field": "decision"}, "webhook_status_field", "decision", id="webhook"),
        pytest.param({"addon_url": "localhost:9"}, "addon_url", "https://localhost:9", id="add-on"),
        pytest.param({"webhook_token": "~._-" + "a" * 28}, "webhook_token", "~._-" + "a" * 28, id="token"),
        pytest.param({"pii_hash_secret": "ü" * 32}, "pii_hash_secret", "ü" * 32, id="hash key"),
        *[
            pytest.param({"auth_flow": flow.value}, "auth_flow", flow, id=f"flow {flow.value}")
            for flow in AuthFlow
        ],
    ],
)
def test_extras_that_are_right(extra: Mapping[str, object], attribute: str, meant: object) -> None:
    found = getattr(read(extra=extra), attribute)
    assert found == meant
    assert type(found) is type(meant)


NUMBERS = sorted(name for name, spec in form.EXTRA_FIELDS.items() if spec.limits)


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [
        pytest.param("soon", id="word"),
        pytest.param(0, id="zero"),
        pytest.param("0", id="zero as text"),
        pytest.param(-1, id="negative"),
        pytest.param(True, id="true"),
        pytest.param(False, id="false"),
        pytest.param("true", id="true as text"),
        pytest.param(float("nan"), id="NaN"),
        pytest.param("nan", id="NaN as text"),
        pytest.param(float("inf"), id="infinite"),
        pytest.param("1e999", id="infinite as text"),
        pytest.param(10**400, id="beyond floats"),
        pytest.param("1_0", id="underscore"),
        pytest.param("٤", id="another script's digit"),
        pytest.param("0x10", id="hexadecimal"),
        pytest.param([30], id="list"),
        pytest.param({"s": 30}, id="object"),
    ],
)
def test_numbers_that_are_refused(key: str, value: object) -> None:
    text = refused(extra={key: value})
    assert f"(extra {key!r})" in text
    assert form.EXTRA_FIELDS[key].label in text
    assert "number from" in text


@pytest.mark.parametrize("key", ["max_attempts", "max_image_bytes", "max_concurrency"])
def test_a_count_is_whole(key: str) -> None:
    assert "whole number" in refused(extra={key: 1.5})


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_beyond_their_limit(key: str) -> None:
    low, high = form.EXTRA_FIELDS[key].limits or (0, 0)
    for value in (low / 2, high * 1.01 + 1):
        assert f"from {low} to {high}" in refused(extra={key: value})


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        pytest.param(
            {"auth_flow": "oauth2"},
            "generate_token, generate_token_headers, access_token_body",
            id="unknown flow",
        ),
        pytest.param({"auth_flow": "GENERATE_TOKEN"}, "'GENERATE_TOKEN'", id="flow in capitals"),
        pytest.param({"auth_flow": 1}, "1 (int)", id="flow is a number"),
        pytest.param({"token_store": "redis"}, "file, memory, the URI of a folder", id="unknown store"),
        pytest.param({"token_store": "tokens/here"}, "file, memory, the URI", id="relative directory"),
        pytest.param(
            {"token_store": "file://shared/tokens"},
            "URI begins with file:///",
            id="relative directory as a URI",
        ),
        pytest.param(
            {"token_store": "FILE://localhost/mnt/x"}, "begins with file:///", id="host in a file URI"
        ),
        pytest.param({"token_store": "file://aws@mnt/x"}, "begins with file:///", id="user in a file URI"),
        pytest.param(
            {"token_store": "local://shared/x"}, "begins with file:///", id="relative, scheme local"
        ),
        pytest.param({"token_store": "local:///mnt/x"}, "begins with file:///", id="scheme local"),
        pytest.param({"token_store": "s3://"}, "file, memory, the URI", id="no bucket"),
        pytest.param({"token_store": "s3://key:secret@kyc/x"}, "file, memory, the URI", id="secret in a URI"),
        pytest.param({"token_store": "s3://kyc/x?version=1"}, "file, memory, the URI", id="query in a URI"),
        pytest.param({"verify": "/no/such/bundle.pem"}, "exists on this machine", id="no such bundle"),
        pytest.param({"verify": "yes"}, "true, false, or the path", id="yes"),
        pytest.param({"verify": 1}, "1 (int)", id="verify is a number"),
        pytest.param({"verify": "a\0b"}, "'a\\x00b'", id="NUL in a path"),
        pytest.param({"proxies": f"http://me:{SECRET}@p:1"}, "not JSON", id="proxies: just an address"),
        pytest.param({"proxies": [f"http://me:{SECRET}@p:1"]}, "type list", id="proxies: list"),
        pytest.param({"proxies": {"ftp": "http://p"}}, "other keys", id="proxies: other keys"),
        pytest.param({"proxies": {"http": 3128}}, "invalid proxy URL", id="proxies: port only"),
        pytest.param({"proxies": {"http": "socks5://p"}}, "another scheme", id="proxies: SOCKS"),
        pytest.param({"proxies": {"http": f"http://u:{SECRET}@p/x"}}, "with a path", id="proxies: path"),
        *[
            pytest.param(
                {"proxies": {"https": f"http://u:{SECRET}{character}x@p:3128"}},
                "percent-encoding",
                id=f"proxies: U+{ord(character):04X} in the password",
            )
            for character in "[]\uff0f\uff1a\uff20\uff1f\uff03\u2100"
        ],
        pytest.param({"proxies": "[" * 100_000}, "not JSON", id="proxies: deep"),
        pytest.param({"records_path": "api/v3"}, "a path such as", id="path without a slash"),
        pytest.param({"records_path": "//evil.example/x"}, "a path such as", id="path with a host"),
        pytest.param({"records_path": "/a/../b"}, "a path such as", id="climbing path"),
        pytest.param({"records_path": "/a?b=1"}, "a path such as", id="path with a query"),
        pytest.param({"records_path": "/a/{link}"}, "such as link_filter", id="id in the path"),
        pytest.param({"auth_header": "X Token"}, "HTTP header", id="token header with a space"),
        pytest.param({"auth_scheme": "Bearer:"}, "one word such as Bearer", id="scheme with a colon"),
        pytest.param({"auth_scheme": True}, "none for the token alone", id="scheme is a flag"),
        pytest.param({"link_filter": "/link/{requestId}"}, "{link} in it once", id="another filter's place"),
        pytest.param({"face_id_filter": "a b"}, "name of a query parameter", id="filter with a space"),
        pytest.param({"pdf_report_method": "PUT"}, "one of GET, POST", id="PDF by PUT"),
        pytest.param({"webhook_request_id_field": "a b"}, "such as requestId", id="field with a space"),
        pytest.param({"portal_record_url": "https://p.example/r"}, "{requestId}", id="record page: no place"),
        pytest.param({"portal_record_url": "http://p.example/{requestId}"}, "https", id="record page: http"),
        pytest.param(
            {"portal_record_url": "https://u:p@p.example/{requestId}"}, "https", id="record page: user"
        ),
        pytest.param({"portal_record_url": "https://{requestId}"}, "https", id="record page: no path"),
        pytest.param({"portal_record_url": "javascript://x/{requestId}"}, "https", id="record page: script"),
        pytest.param(
            {"portal_record_url": "https://p.example/ {requestId}"}, "https", id="record page: space"
        ),
        pytest.param({"max_charged_calls": 0}, "from 1 to", id="no charged call at all"),
        pytest.param({"pdf_report_path": "/pdf"}, "{requestId}", id="PDF path without its place"),
        pytest.param({"pdf_report_path": "/{requestId}/{requestId}"}, "once", id="PDF path: twice"),
        pytest.param({"pdf_report_path": "/{requestId}/{x}"}, "{requestId}", id="PDF path: another place"),
        pytest.param({"pdf_report_path": "https://h/{requestId}"}, "such as /reports", id="PDF path: URL"),
        pytest.param({"workflow_id": 7}, "7 (int)", id="workflow is a number"),
        pytest.param({"workflow_id": "wf\n"}, "white space", id="workflow with a newline"),
        pytest.param({"webhook_token": "short"}, "32 or more", id="short token"),
        pytest.param({"webhook_token": "a/" * 20}, "32 or more", id="token that no path holds"),
        pytest.param({"pii_hash_secret": "k" * 31}, "32 or more", id="short key"),
        pytest.param({"webhook_hmac_header": "X Signature"}, "HTTP header", id="header name with a space"),
        pytest.param({"webhook_hmac_secret": LONG_KEY}, "'webhook_hmac_header'", id="secret, no header"),
        pytest.param({"webhook_hmac_header": "X-Sig"}, "'webhook_hmac_secret'", id="header, no secret"),
        pytest.param(
            {"webhook_hmac_secret": "x", "webhook_hmac_header": "X-Sig"},
            "32 or more",
            id="secret of one character",
        ),
        pytest.param(
            {"webhook_hmac_timestamp_header": "X-Time"}, "'webhook_hmac_header'", id="time, no header"
        ),
        pytest.param(
            {"webhook_hmac_timestamp_header": "X-Time"}, "'webhook_hmac_secret'", id="time, no secret"
        ),
        pytest.param(
            {"webhook_statuses": "ACCEPTED,MAYBE"}, "some of ACCEPTED, DECLINED", id="unknown status"
        ),
        pytest.param({"webhook_statuses": []}, "some of ACCEPTED, DECLINED", id="no status"),
        pytest.param({"webhook_max_per_day": 0}, "a whole number from 1", id="no webhook a day"),
        pytest.param({"webhook_token_previous": LONG_KEY}, "'webhook_token'", id="previous token only"),
    ],
)
def test_extras_that_are_refused(extra: Mapping[str, object], expected: str) -> None:
    assert expected in refused(extra=extra)
    assert LONG_KEY not in refused(extra=extra)


@pytest.mark.parametrize(("field", "label"), [("login", "Client ID"), ("password", "Client Secret")])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, "it is required", id="missing"),
        pytest.param("", "it is required", id="empty"),
        pytest.param(f" {SECRET}", "white space before or after", id="space before"),
        pytest.param(f"{SECRET}\n", "white space before or after", id="newline after"),
        pytest.param(f"{SECRET}\x00", "control", id="NUL"),
        pytest.param(f"\ufeff{SECRET}", "control or invisible", id="byte order mark"),
        pytest.param(SECRET * 200, "at most 2048", id="endless"),
    ],
)
def test_id_and_secret_that_are_refused(field: str, label: str, value: str | None, expected: str) -> None:
    text = refused(**{field: value})
    assert expected in text
    assert f"{label} (field {field!r})" in text


def test_a_secret_that_no_header_carries() -> None:
    assert read(password="päss-wörd").client_secret == "päss-wörd"
    text = refused(password="päss-wörd", extra={"auth_flow": "access_token_headers"})
    assert "not allowed in an HTTP header" in text


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"port": 65536}, "Port (field 'port')", id="port too high"),
        pytest.param({"port": -1}, "from 1 to 65535", id="negative port"),
        pytest.param({"port": True}, "True (bool)", id="port true"),
        pytest.param({"schema": "v1"}, "put a path into the API base URL", id="schema is a path"),
        pytest.param({"extra": [1]}, "a JSON object", id="extra is a list"),
    ],
)
def test_standard_fields_that_are_refused(fields: dict[str, object], expected: str) -> None:
    assert expected in refused(**fields)


def test_a_bundle_may_be_a_file_or_a_directory(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    assert read(extra={"verify": str(bundle)}).verify == str(bundle)
    assert read(extra={"verify": str(tmp_path)}).verify == str(tmp_path)
