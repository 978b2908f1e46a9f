# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of ``airflow faceki check`` with the sandbox as FACEKI is documented, and with each dialect of the sandbox."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.api import probes
from airflow_provider_faceki.api.protocol.messages import HttpRequest, HttpResponse
from airflow_provider_faceki.check import main
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.dialects import DIALECTS
from tests.airflow.running import AIRFLOW_VERSION
from tests.api.fake_server import NOTHING_FOUND, RECORDS_PATH, TOKEN_PATH, FakeServer, issue_token, reply_json

pytestmark = pytest.mark.process


def connect(monkeypatch: pytest.MonkeyPatch, sandbox: FacekiSandbox, **extra: object) -> None:
    connection = sandbox.connection(token_store="memory", timeout=120, **extra)
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))


class Checked:
    """Exit status and output of a check."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = main(arguments)
        self.output = capsys.readouterr().out
        lines = self.output.splitlines()
        marker = 'Add these keys to "extra" in the variable\'s JSON, wherever the variable is set:'
        self.settings: dict[str, str] = json.loads(lines[lines.index(marker) + 1]) if marker in lines else {}


def test_the_check_of_a_documented_service_is_free_and_passes(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    connect(monkeypatch, faceki_sandbox)
    began = time.monotonic()
    checked = Checked(capsys, "--report", str(tmp_path / "report.md"))
    assert time.monotonic() - began < 60
    assert (checked.status, checked.settings) == (0, {}), checked.output
    assert "The Connection can be used as it is." in checked.output
    assert "by calls that FACEKI does not charge" in checked.output
    assert faceki_sandbox.ledger == {}
    assert faceki_sandbox.bills == ()
    assert faceki_sandbox.counters.tokens_issued == 1
    assert set(faceki_sandbox.counters.requests) == {"token", "records", "rules", "pdf"}
    report = (tmp_path / "report.md").read_text()
    for private in (faceki_sandbox.client_id, faceki_sandbox.client_secret, faceki_sandbox.url):
        assert private not in report
    assert "generate_token, as configured" in report
    assert "3600 s" in report


@pytest.mark.timeout(60)
@pytest.mark.parametrize("lifetime", [0, 1e-9])
def test_a_token_that_expires_during_the_check_is_renewed(lifetime: float) -> None:
    with FakeServer() as server:
        server.on(TOKEN_PATH, issue_token(lifetime))
        server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
        client = api.FacekiClient("client", "secret", service=api.Service(base_url=server.url))
        found = {finding.question: finding for finding in probes.Diagnosis(client).findings()}
        assert found["How long is a token valid?"].answer == "0 s"
        assert found["Where are records?"].answer == "as configured"
        assert len(server.requests_to(TOKEN_PATH)) == 1
        assert {received.bearer for received in server.requests_to(RECORDS_PATH)} > {"token-1"}


@pytest.mark.parametrize("bracket", [b"[]", b"{}"])
def test_a_deep_answer_is_described_in_a_line(bracket: bytes) -> None:
    deep = bracket[:1] * 900 + bracket[1:] * 900 if bracket == b"[]" else b'{"a":' * 900 + b"1" + b"}" * 900
    described = probes.describe_response(HttpResponse(200, {"content-type": "application/json"}, deep))
    assert described == f"HTTP 200, application/json, {len(deep)} bytes that are not JSON"


TOKEN_FORMS = [flow.value for flow in api.AuthFlow]
PATH_IDS = "/api/v3/kyc_verification"
NEEDED: dict[str, dict[str, str]] = {
    **{
        f"token-form-{flow.replace('_', '-')}": {"auth_flow": flow}
        for flow in TOKEN_FORMS
        if flow != "generate_token"
    },
    "token-raw-header": {"auth_scheme": "none"},
    "token-own-header": {"auth_header": "x-access-token", "auth_scheme": "none"},
    "records-elsewhere": {"records_path": "/api/v3/records"},
    "other-filters": {
        "request_id_filter": "request_id",
        "link_filter": "linkId",
        "face_id_filter": "faceId",
        "record_identifier_filter": "recordIdentifier",
    },
    "path-ids": {
        "request_id_filter": f"{PATH_IDS}/requestId/{{requestId}}",
        "link_filter": f"{PATH_IDS}/link/{{link}}",
        "face_id_filter": f"{PATH_IDS}/face_id/{{face_id}}",
        "record_identifier_filter": f"{PATH_IDS}/record_identifier/{{record_identifier}}",
    },
    "pdf-by-post": {"pdf_report_method": "POST"},
    "no-records-null": {"null_result": "no_record"},
    "records-null": {"null_result": "no_record"},
}
#: Variants that no setting can support. The report must describe what was found.
BROKEN = {
    "moved",
    "records-empty",
    "records-latin-1",
    "records-not-gzip",
    "records-text",
    "web-page",
}


@pytest.mark.any_airflow
@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - BROKEN))
def test_each_dialect_names_the_settings_that_it_needs(
    dialect: str,
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    faceki_sandbox.settings.dialect = dialect
    pdf = {"pdf_report_path": faceki_sandbox.settings.pdf_path}
    connect(monkeypatch, faceki_sandbox, **pdf)
    checked = Checked(capsys)
    needed = NEEDED.get(dialect, {})
    assert (checked.status, checked.settings) == (1 if needed else 0, needed), checked.output
    assert faceki_sandbox.counters.tokens_issued == 1
    assert faceki_sandbox.ledger == {}
    # The Connection works with these settings.
    connect(monkeypatch, faceki_sandbox, **pdf, **needed)
    assert FacekiHook().fetch_records(record_identifier="nobody-1") == ()
    assert Checked(capsys).status == 0


@pytest.mark.any_airflow
@pytest.mark.parametrize("dialect", sorted(BROKEN))
def test_an_unsupported_dialect_is_reported_as_broken(
    dialect: str,
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    faceki_sandbox.settings.dialect = dialect
    connect(monkeypatch, faceki_sandbox)
    checked = Checked(capsys)
    assert checked.status == 2
    assert "broken" in checked.output


@pytest.mark.parametrize(
    ("changes", "status", "expected"),
    [
        pytest.param({"extra": {"timeout": "soon"}}, 1, "found 'soon'", id="a wrong field"),
        pytest.param({"password": "wrong-made-up"}, 2, "check Client ID and Client Secret", id="credentials"),
        pytest.param({"host": "http://127.0.0.1:9"}, 2, "no connection to", id="nobody listens"),
    ],
)
def test_connections_that_are_wrong(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    status: int,
    expected: str,
) -> None:
    connection = {**faceki_sandbox.connection(token_store="memory"), **changes}
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
    checked = Checked(capsys)
    assert checked.status == status, checked.output
    assert expected in " ".join(checked.output.split())
    # The check sends at most one request for each token form.
    assert faceki_sandbox.counters.requests.get("token", 0) <= len(TOKEN_FORMS)


def test_a_wrong_base_path_is_named(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = {**faceki_sandbox.connection(), "host": f"{faceki_sandbox.url}/v9"}
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
    checked = Checked(capsys)
    assert checked.status == 2
    assert "check the API base URL" in " ".join(checked.output.split())
    works, told = FacekiHook().test_connection()
    assert not works
    assert "base URL" in told


def test_no_such_connection(capsys: pytest.CaptureFixture[str]) -> None:
    checked = Checked(capsys, "no_such_connection")
    assert checked.status == 2
    assert "There is no Connection 'no_such_connection'." in checked.output


@pytest.mark.parametrize(
    ("conn_id", "told"),
    [
        pytest.param("", "faceki_conn_id is empty", id="an unset variable of the shell"),
        pytest.param("None", "faceki_conn_id is 'None'", id="a missing value as text"),
    ],
)
def test_an_unusable_connection_id(capsys: pytest.CaptureFixture[str], conn_id: str, told: str) -> None:
    checked = Checked(capsys, conn_id)
    assert checked.status == 2
    assert told in checked.output


@pytest.mark.parametrize("place", ["no-such-folder/report.md", ".", "unset variable"])
def test_an_unwritable_report_path_is_rejected_before_any_request(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    place: str,
) -> None:
    connect(monkeypatch, faceki_sandbox)
    report = "" if place == "unset variable" else str(tmp_path / place)
    checked = Checked(capsys, "--report", report)
    assert checked.status == 2
    assert f"The report cannot be written: {report!r}" in checked.output
    assert faceki_sandbox.counters.requests == {}


def test_a_report_that_can_no_longer_be_written_leaves_the_status(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """The folder of the report is removed while the check asks its question."""
    connect(monkeypatch, faceki_sandbox)
    folder = tmp_path / "reports"
    folder.mkdir()

    def reply(question: str) -> str:
        shutil.rmtree(folder)
        return "n"

    monkeypatch.setattr("builtins.input", reply)
    checked = Checked(capsys, "--make-link", "--report", str(folder / "report.md"))
    assert checked.status == 0
    assert "The report cannot be written" in checked.output
    assert "Report written" not in checked.output


def test_an_unknown_workflow_is_named(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connect(monkeypatch, faceki_sandbox, workflow_id="unknown-1")
    checked = Checked(capsys)
    assert checked.status == 1
    assert set(checked.settings) == {"workflow_id"}


@pytest.mark.parametrize("workflow", ["null", "x" * 600])
def test_a_workflow_that_is_no_id_is_named(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    workflow: str,
) -> None:
    connect(monkeypatch, faceki_sandbox, workflow_id=workflow)
    checked = Checked(capsys, "--make-link", "--yes", "--report", str(tmp_path / "report.md"))
    assert checked.status == 1
    assert set(checked.settings) == {"workflow_id"}
    assert " ".join(checked.output.split()).count("is not a valid id") == 2
    assert (tmp_path / "report.md").read_text().count("is not a valid id") == 2


@pytest.mark.parametrize(
    ("arguments", "answer", "made"),
    [
        pytest.param(["--make-link"], "y", 1, id="agreed"),
        pytest.param(["--make-link"], "", 0, id="not agreed"),
        pytest.param(["--make-link", "--yes"], None, 1, id="not asked"),
        pytest.param([], None, 0, id="not wanted"),
    ],
)
def test_a_link_is_made_when_it_is_asked_for(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    answer: str | None,
    made: int,
) -> None:
    connect(monkeypatch, faceki_sandbox)

    def reply(question: str) -> str:
        assert "might charge" in question
        assert answer is not None
        return answer

    monkeypatch.setattr("builtins.input", reply)
    assert main(arguments) == 0
    assert faceki_sandbox.counters.requests.get("link", 0) == made


@pytest.mark.parametrize("flow", [form for form in TOKEN_FORMS[1:] if form != "access_token_query"])
def test_the_test_of_a_connection_names_the_form_that_works(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, flow: str
) -> None:
    faceki_sandbox.settings.dialect = f"token-form-{flow.replace('_', '-')}"
    connect(monkeypatch, faceki_sandbox)
    works, told = FacekiHook().test_connection()
    assert not works
    assert f"FACEKI issues a token with auth_flow={flow!r}: set this value" in told


def test_the_test_of_a_connection_puts_the_secret_into_no_url(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    faceki_sandbox.settings.dialect = "token-form-access-token-query"
    connect(monkeypatch, faceki_sandbox)
    works, told = FacekiHook().test_connection()
    assert not works
    assert "auth_flow='access_token_query', which puts the secret into the URL, was not tried" in told
    assert faceki_sandbox.counters.requests["token"] == len(TOKEN_FORMS) - 1
    connect(monkeypatch, faceki_sandbox, auth_flow="access_token_query")
    assert FacekiHook().test_connection()[0]


def run(
    *command: str, sandbox: FacekiSandbox, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    import os

    connection = json.dumps(sandbox.connection(token_store="memory"))
    environment = os.environ | (variables or {"AIRFLOW_CONN_FACEKI_DEFAULT": connection})
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def rows_of(report: Path) -> dict[str, str]:
    """Return the rows of a report by their question."""
    lines = [line for line in report.read_text().splitlines() if line.startswith("| ")][1:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


@pytest.mark.parametrize(
    ("dialect", "rows"),
    [
        pytest.param(
            "token-own-header",
            {"How is the token sent?": {"auth_header": "x-access-token", "auth_scheme": "none"}},
            id="the token",
        ),
        pytest.param("records-elsewhere", {"Where are records?": NEEDED["records-elsewhere"]}, id="the path"),
        pytest.param(
            "no-records-null", {'What is "nothing found"?': NEEDED["no-records-null"]}, id="nothing found"
        ),
        pytest.param(
            "other-filters",
            {
                f"How are records found by {name.removesuffix('_filter')}?": {name: value}
                for name, value in NEEDED["other-filters"].items()
            },
            id="the filters",
        ),
    ],
)
def test_each_setting_has_a_row_that_the_documentation_has_too(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    dialect: str,
    rows: dict[str, dict[str, str]],
) -> None:
    faceki_sandbox.settings.dialect = dialect
    connect(monkeypatch, faceki_sandbox, pdf_report_path=faceki_sandbox.settings.pdf_path)
    main(["--make-link", "--yes", "--report", str(tmp_path / "report.md")])
    found = rows_of(tmp_path / "report.md")
    assert {question for question, row in found.items() if "| change: " in row} == set(rows)
    for question, settings in rows.items():
        assert json.dumps(settings) in found[question]
    page = (Path(__file__).parents[2] / "docs/compatibility.md").read_text()
    assert [question for question in found if f"\n| {question} |" not in page] == []


@pytest.mark.any_airflow
@pytest.mark.parametrize("refused", ["path-ids at a wrong path", "all but the last place"])
def test_the_announced_number_of_requests_is_a_limit(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refused: str,
) -> None:
    sent: list[str] = []
    send = probes._Recorder.send

    def count(recorder: probes._Recorder, request: HttpRequest) -> HttpResponse:
        response = send(recorder, request)
        sent.append(request.url)
        if refused == "all but the last place" and "token" not in request.url:
            is_last = "/api/v3/records/faceki-check-" in request.url
            recorder.last = "changed"
            return HttpResponse(
                200 if is_last else 403, {}, b'{"responseCode": 0, "data": []}' if is_last else b""
            )
        return response

    monkeypatch.setattr(probes._Recorder, "send", count)
    faceki_sandbox.settings.dialect = "path-ids"
    connect(monkeypatch, faceki_sandbox, records_path="/nowhere")
    main([])
    assert f"else at most {probes.MAX_RECORDS_REQUESTS}" in capsys.readouterr().out
    others = [url for url in sent if "token" in url or "rules" in url]
    # Two of the requests for records have a made-up token.
    assert 20 < len(sent) - len(others) <= probes.MAX_RECORDS_REQUESTS + 2
    assert len(others) <= len(TOKEN_FORMS) + 2


@pytest.mark.parametrize("form", ["json", "uri", "uri with extra"])
def test_a_connection_from_a_variable_is_changed_there(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    faceki_sandbox.settings.dialect = "token-raw-header"
    login = f"{faceki_sandbox.client_id}:{faceki_sandbox.client_secret}"
    host = quote(faceki_sandbox.url, safe="")
    extra = quote(json.dumps({"token_store": "memory"}))
    value, told = {
        "json": (json.dumps(faceki_sandbox.connection(token_store="memory")), 'Add these keys to "extra"'),
        "uri": (f"faceki://{login}@{host}/?token_store=memory", "  auth_scheme=none"),
        "uri with extra": (f"faceki://{login}@{host}/?__extra__={extra}", "the JSON of __extra__"),
    }[form]
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", value)
    status = main([])
    output = capsys.readouterr().out
    assert status == 1, output
    assert "from the environment variable AIRFLOW_CONN_FACEKI_DEFAULT" in output
    assert '  {"auth_scheme": "none"}' in output
    assert told in output
    assert "airflow connections" not in output
    assert faceki_sandbox.client_secret not in output


def test_the_printed_command_keeps_the_base_url(faceki_sandbox: FacekiSandbox, tmp_path: Path) -> None:
    faceki_sandbox.settings.dialect = "token-raw-header"
    stored = tmp_path / "connections.json"
    stored.write_text(json.dumps({"stored_elsewhere": faceki_sandbox.connection(token_store="memory")}))
    backend = {
        "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(stored)}),
    }
    command = ("-m", "airflow_provider_faceki.check", "stored_elsewhere")
    done = run(*command, sandbox=faceki_sandbox, variables=backend)
    assert done.returncode == 1, done.stderr + done.stdout
    added = next(line for line in done.stdout.splitlines() if "airflow connections add" in line)
    connection = json.loads(shlex.split(added)[-1])
    assert (connection["host"], connection["extra"]) == (faceki_sandbox.url, {"auth_scheme": "none"})
    assert faceki_sandbox.client_secret not in done.stdout


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 2), reason="Airflow takes commands of providers from 3.2 on")
def test_as_a_command_of_airflow(faceki_sandbox: FacekiSandbox) -> None:
    faceki_sandbox.settings.dialect = "token-raw-header"
    done = run("-m", "airflow", "faceki", "check", sandbox=faceki_sandbox)
    assert done.returncode == 1, done.stderr
    assert '{"auth_scheme": "none"}' in done.stdout
