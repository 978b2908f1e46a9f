# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The PDF report: its sources, its formats, and which host receives the token."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.api.endpoints.reports import _Followed
from airflow_provider_faceki.api.secrets import SecretText
from airflow_provider_faceki.operators.reports import FacekiPdfReportOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import execute
from tests.api.fake_server import FakeServer, Handler, Reply, reply_bytes, reply_json
from tests.billing.conftest import Connect

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 40
REPORT = "/reports/r-1"
MEBI = 1024 * 1024


@pytest.fixture
def report(sandbox: FacekiSandbox, connect: Connect, tmp_path: Path) -> Any:
    connect(sandbox, pdf_report_path=sandbox.settings.pdf_path)

    def fetch(request_id: str) -> tuple[object, Path]:
        target = tmp_path / "reports" / "one.pdf"
        made = FacekiPdfReportOperator(task_id="report", request_id=request_id, output_path=str(target))
        path, pushed = execute(made)
        assert pushed == {}
        return path, target

    return fetch


@pytest.mark.parametrize("form", ["bytes", "json-url", "json-base64"])
def test_in_its_three_forms(sandbox: FacekiSandbox, report: Any, form: str) -> None:
    sandbox.settings.pdf_form = form
    request_id = str(sandbox.add_record("a")["requestId"])
    path, target = report(request_id)
    assert path == str(target)
    content = target.read_bytes()
    assert content.startswith(b"%PDF")
    assert request_id.encode() in content
    assert content.rstrip().endswith(b"%%EOF")
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_large_one_passes_through(sandbox: FacekiSandbox, report: Any) -> None:
    sandbox.settings.pdf_size = 40 * MEBI
    _, target = report(str(sandbox.add_record("a")["requestId"]))
    assert target.stat().st_size > 40 * MEBI


@pytest.mark.parametrize("form", ["bytes", "json-url", "json-base64"])
def test_an_unknown_report_is_not_found(
    sandbox: FacekiSandbox, report: Any, form: str, tmp_path: Path
) -> None:
    sandbox.settings.pdf_form = form
    with pytest.raises(api.NotFoundError):
        report("973f1bb2-0000-4000-8000-000000000000")
    assert not (tmp_path / "reports").exists()


def test_a_report_whose_answer_is_lost_is_fetched_again(sandbox: FacekiSandbox, report: Any) -> None:
    made = sandbox.add_record("a")
    sandbox.add_fault("process_then_reset", route="pdf")
    _, target = report(str(made["requestId"]))
    assert target.read_bytes().startswith(b"%PDF-")
    assert sandbox.counters.requests["pdf"] == 2


def test_a_missing_report_path_is_a_configuration_error(
    sandbox: FacekiSandbox, connect: Connect, report: Any
) -> None:
    connect(sandbox, pdf_report_path=None)
    with pytest.raises(
        AirflowFailException, match="ConfigurationError: .*set pdf_report_path in the Connection's"
    ):
        report("r-1")
    assert sandbox.counters.requests == {}


@pytest.mark.parametrize("request_id", ["", " ", "a\nb", ".", "..", "..."])
def test_no_id(report: Any, request_id: str) -> None:
    with pytest.raises(AirflowFailException, match="request_id"):
        report(request_id)


def test_an_id_is_one_part_of_the_path() -> None:
    service = api.Service(base_url="https://faceki.example", pdf_report_path="/reports/{requestId}/pdf")
    url = api.FetchPdfReport("a/../b?c#d e").request(service).url
    assert url == "https://faceki.example/reports/a%2F..%2Fb%3Fc%23d%20e/pdf"


def client(server: FakeServer) -> api.FacekiClient:
    return api.FacekiClient(
        "client",
        f"secret of {server.url}",
        service=api.Service(base_url=server.url, pdf_report_path="/reports/{requestId}"),
        retry=api.RetryPolicy(max_attempts=1),
    )


def fetch(server: FakeServer, reply: Reply) -> bytes:
    server.on(REPORT, reply)
    report = client(server).call(api.FetchPdfReport("r-1"))
    with report.file:
        return report.file.read()


ENCODED = base64.b64encode(PDF).decode()


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(reply_bytes(PDF, 200, ("Content-Type", "application/pdf")), id="a PDF"),
        pytest.param(reply_bytes(PDF, 200, ("Content-Type", "text/html")), id="a PDF by another name"),
        pytest.param(reply_json({"status": True, "code": 200, "result": ENCODED}), id="base64 as the result"),
        pytest.param(
            reply_json({"status": True, "code": 200, "result": {"name": "x", "pdf": ENCODED}}),
            id="in an object",
        ),
        pytest.param(
            reply_json({"responseCode": 0, "data": {"file": {"content": ENCODED}}}), id="in the old envelope"
        ),
        pytest.param(reply_json({"result": f"data:application/pdf;base64,{ENCODED}"}), id="a data URL"),
        pytest.param(reply_json({"pdf": base64.encodebytes(PDF).decode()}), id="base64 in lines"),
    ],
)
def test_a_report_is_read_in_every_response_form(reply: Reply) -> None:
    with FakeServer() as server:
        assert fetch(server, reply) == PDF


def _in_chunks(content: bytes) -> Iterator[bytes]:
    yield from (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (content[:2], content[2:]))
    yield b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "pieces"),
    [
        pytest.param(b"Content-Length: %d\r\n" % len(PDF), [PDF[:2], PDF[2:3], PDF[3:]], id="as it is"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", list(_in_chunks(PDF)), id="in chunks"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n",
            list(_in_chunks(gzip.compress(PDF))),
            id="packed, in chunks",
        ),
        pytest.param(
            b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(gzip.compress(PDF)),
            [gzip.compress(PDF)[:11], gzip.compress(PDF)[11:20], gzip.compress(PDF)[20:]],
            id="packed",
        ),
    ],
)
def test_a_report_is_read_from_a_body_in_any_pieces(head: bytes, pieces: list[bytes]) -> None:
    def reply(handler: Handler) -> None:
        handler.send_bytes(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        for piece in pieces:
            # The pause is long enough for the piece to be read before the next piece arrives.
            time.sleep(0.2)
            handler.send_bytes(piece)

    with FakeServer() as server:
        assert fetch(server, reply) == PDF


@pytest.mark.parametrize("body", [b"", b"%", b"%PD"])
def test_a_body_too_short_to_detect_its_form_is_rejected(body: bytes) -> None:
    with FakeServer() as server, pytest.raises(api.UnexpectedResponseError):
        fetch(server, reply_bytes(body))


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        pytest.param(reply_bytes(b"<html>sign in</html>"), "not JSON", id="a page"),
        pytest.param(reply_bytes(b"\x89PNG\r\n\x1a\n"), "not JSON", id="an image"),
        pytest.param(
            reply_json({"status": True, "code": 200, "result": {"pdf": "JVBERthis is no base64"}}),
            "neither",
            id="no",
        ),
        pytest.param(
            reply_json({"status": True, "code": 200, "result": {"state": "pending"}}),
            "neither",
            id="not ready",
        ),
        pytest.param(reply_json({"status": True, "code": 200, "result": []}), "neither", id="nothing"),
        pytest.param(reply_json({"url": "ftp://faceki.example/r.pdf"}), "neither", id="another protocol"),
        pytest.param(
            reply_json({"url": "http://elsewhere.example/r.pdf"}), "begin with https://", id="not encrypted"
        ),
        pytest.param(reply_json({"url": "https://[elsewhere"}), "FACEKI returned is invalid", id="no URL"),
        pytest.param(
            reply_bytes(b"", 302, ("Location", "https://[elsewhere")),
            "FACEKI returned is invalid",
            id="a redirect to no URL",
        ),
        pytest.param(
            reply_bytes(b"", 302, ("Location", "http://elsewhere.example/r.pdf")),
            "begin with https://",
            id="a redirect that is not encrypted",
        ),
    ],
)
def test_what_is_no_report(reply: Reply, told: str) -> None:
    with FakeServer() as server, pytest.raises(api.UnexpectedResponseError, match=told) as caught:
        fetch(server, reply)
    assert "elsewhere" not in str(caught.value)


def test_the_token_goes_only_to_faceki() -> None:
    # The client follows a URL to another host only over HTTPS. A local server has no HTTPS, so this test checks only
    # the request that the client would send.
    own = api.Service(base_url="https://faceki.example", pdf_report_path="/reports/{requestId}")
    report = api.FetchPdfReport("r-1")
    asked = {
        url: _Followed(SecretText(url), report).request(own).authenticated
        for url in (
            "https://faceki.example/files/r-1",
            "https://storage.example/r-1?signature=x",
            "https://faceki.example.storage.example/r-1",
            "https://faceki.example@storage.example/r-1",
            "https://faceki.example:8443/r-1",
        )
    }
    assert list(asked.values()) == [True, False, False, False, False]


def test_a_report_url_at_the_base_url_gets_the_token() -> None:
    with FakeServer() as server:
        server.on("/files/r-1", reply_bytes(PDF))
        assert (
            fetch(server, reply_json({"result": {"url": f"{server.url}/files/r-1?signature=a%2Fb"}})) == PDF
        )
        (received,) = server.requests_to("/files/r-1")
        assert received.bearer == "token-1"
        assert received.target == "/files/r-1?signature=a%2Fb"


def test_it_follows_once_only() -> None:
    with FakeServer() as server:
        server.on("/again", reply_json({"url": f"{server.url}/again"}))
        with pytest.raises(
            api.UnexpectedResponseError, match="contains no PDF; it contains an object with the keys url"
        ):
            fetch(server, reply_json({"url": f"{server.url}/again"}))
        assert len(server.requests_to("/again")) == 1


def test_metrics_name_the_call() -> None:
    class Counted:
        names: set[str]

        def __init__(self) -> None:
            self.names = set()

        def sent(self, endpoint: str, status: int | None) -> None:
            self.names.add(endpoint)

        def retried(self, endpoint: str) -> None:
            self.names.add(endpoint)

        def token_received(self) -> None:
            pass

    with FakeServer() as server:
        server.on("/files/r-1", reply_bytes(b"", 503), reply_bytes(PDF))
        server.on(REPORT, reply_json({"url": f"{server.url}/files/r-1"}))
        counted = Counted()
        retry = api.RetryPolicy(max_attempts=2, max_wait=0.01)
        replace(client(server), observer=counted, retry=retry).call(api.FetchPdfReport("r-1")).file.close()
        assert counted.names == {"", "FetchPdfReport"}


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_expired_report_url_is_no_authentication_error(status: int) -> None:
    with FakeServer() as server:
        server.on("/expired", reply_bytes(b"<Error><Code>AccessDenied</Code></Error>", status))
        with pytest.raises(
            api.UnexpectedResponseError, match="could not be downloaded from the URL"
        ) as caught:
            fetch(server, reply_json({"url": f"{server.url}/expired?signature=secret"}))
        assert caught.value.http_status == status
        assert "secret" not in json.dumps([str(caught.value), repr(caught.value)])
