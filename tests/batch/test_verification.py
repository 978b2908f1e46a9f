# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Every row of a manifest is verified once or becomes an error row."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from pyarrow import parquet

from airflow_provider_faceki import api
from airflow_provider_faceki.batch import runner
from airflow_provider_faceki.batch.manifest import MAX_LINE_BYTES
from airflow_provider_faceki.operators import batch
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import TaskInstance, context
from tests.batch.conftest import Connect
from tests.batch.harness import BatchHarness, once
from tests.billing.image_files import image_bytes, write


def test_results_counts_and_paths(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    names = ["accepted-1", "declined-2", "review-3", "code-5004-4", "decision-ESCALATED-5"]
    done = harness.verify(harness.everybody(*names))
    assert done == {
        "rows": 5,
        "decisions": {"ACCEPTED": 1, "DECLINED": 2, "REVIEW": 1, "ESCALATED": 1},
        "errors": {},
        "found": 0,
        "results_path": f"{harness.out.as_uri()}/results",
        "errors_path": f"{harness.out.as_uri()}/errors",
        "records_path": None,
    }
    assert harness.results() == {
        "accepted-1": "ACCEPTED",
        "declined-2": "DECLINED",
        "review-3": "REVIEW",
        "code-5004-4": "DECLINED",
        "decision-ESCALATED-5": "ESCALATED",
    }
    assert {line["record_identifier"]: line["row"] for line in harness.lines("results")} == {
        name: row for row, name in enumerate(names, 1)
    }
    assert [line["record_identifier"] for line in harness.lines("results") if line["retake_selfie"]] == [
        "code-5004-4"
    ]
    assert faceki.ledger == once(names)
    assert faceki.counters.tokens_issued == 1
    assert faceki.counters.requests == {"token": 1, "rules": 1, "records": 5, "verify": 5}
    assert harness.parts("records") == []


def test_names_of_columns_workflows_and_conn_id(
    faceki_sandbox: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = faceki_sandbox.connection(workflow_id="5a4db0c5-0000-4000-8000-000000000002")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(connection))
    place = harness.folder / "people.csv"
    place.write_text(
        "who,what,face,first,second\n"
        f"a,,{harness.selfie},{harness.front},\n"
        f"b,5a4db0c5-0000-4000-8000-000000000001,{harness.selfie},{harness.front},{harness.back}\n"
    )
    columns = {
        "record_identifier": "who",
        "workflow_id": "what",
        "selfie": "face",
        "document_1_front": "first",
        "document_1_back": "second",
    }
    done = harness.verify(place.as_uri(), columns=columns, faceki_conn_id="other")
    assert done["decisions"] == {"ACCEPTED": 2}
    assert faceki_sandbox.ledger == once("ab")


def test_parquet_manifest(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    place = harness.folder / "people.parquet"
    rows = [harness.line("a"), harness.line("b")]
    parquet.write_table(pyarrow.Table.from_pylist(rows), place)
    assert harness.verify(place.as_uri())["decisions"] == {"ACCEPTED": 2}


def test_duplicates_are_errors_and_no_second_bill(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    manifest = harness.everybody("a", "b", "a", " a ", "b")
    for _ in range(2):
        done = harness.verify(manifest)
        assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 2}, {"DUPLICATE_IDENTIFIER": 3})
        assert harness.errors() == dict.fromkeys((3, 4, 5), "DUPLICATE_IDENTIFIER")
    assert faceki.ledger == once("ab")
    assert harness.lines("errors")[0]["record_identifier"] == "a"


def every_bad_row(harness: BatchHarness) -> list[tuple[str, Any, str, str]]:
    """Return name, line, code, and a part of the problem of each kind of bad row."""
    text, empty, short = (
        write(harness.folder, name, content)
        for name, content in (("text.jpg", b"hello"), ("empty.jpg", b""), ("short.jpg", image_bytes(40)))
    )
    folder = harness.folder.as_uri()
    os.mkfifo(harness.folder / "pipe.jpg")

    def line(name: str, **more: object) -> dict[str, object]:
        return harness.line(name, **more)

    return [
        ("empty object", {}, "NO_IDENTIFIER", "no identifier"),
        ("no identifier", line("x", record_identifier=None), "NO_IDENTIFIER", "no identifier"),
        ("blank identifier", line("   "), "NO_IDENTIFIER", "no identifier"),
        ("an SDK's word for none", line("undefined"), "NO_IDENTIFIER", "no identifier"),
        ("identifier too long", line("x" * 600), "BAD_IDENTIFIER", "at most 512"),
        ("identifier of a wrong type", line("x", record_identifier=1.5), "BAD_ROW", "text, not float"),
        ("not JSON", "nonsense", "BAD_ROW", "not JSON"),
        ("a line of a megabyte", '{"record_identifier": "%s"}' % ("x" * 1_000_000), "BAD_IDENTIFIER", "512"),
        ("a longer line", "x" * (MAX_LINE_BYTES + 10), "BAD_ROW", "longer than"),
        ("wrong type", line("e1", selfie=["a"]), "BAD_ROW", "'selfie' must be text, not list"),
        ("no selfie", line("e2", selfie=None), "INVALID_INPUT", "selfie is missing"),
        (
            "no document",
            line("e3", document_1_front=None, document_1_back=None),
            "INVALID_INPUT",
            "0 given",
        ),
        (
            "back without front",
            line("e4", document_1_front=None),
            "INVALID_INPUT",
            "document_1_back is given without",
        ),
        ("missing image", line("e5", selfie=f"{folder}/none.jpg"), "INVALID_INPUT", "No such file"),
        ("empty image", line("e6", selfie=empty), "INVALID_INPUT", "selfie is empty"),
        ("no image", line("e7", document_1_back=text), "INVALID_INPUT", "document_1_back is not an image"),
        ("a directory", line("e8", document_1_front=folder), "INVALID_INPUT", "not a file of known size"),
        ("a folder's URI", line("e9", selfie=f"{folder}/"), "INVALID_INPUT", "this is a folder"),
        ("relative path", line("e10", selfie="people/selfie.jpg"), "INVALID_INPUT", "give the absolute path"),
        (
            "relative URI",
            line("e11", selfie="file://selfie.jpg"),
            "INVALID_INPUT",
            "a local file's URI begins",
        ),
        (
            "unknown scheme",
            line("e12", selfie="gopher://b/selfie.jpg"),
            "INVALID_INPUT",
            "allowed_image_prefixes",
        ),
        ("NUL in a path", line("e13", selfie=f"{folder}/a\0b.jpg"), "BAD_ROW", "not UTF-8, or not printable"),
        ("bucket alone", line("e14", selfie="s3://bucket"), "INVALID_INPUT", "storage path"),
        ("a pipe", line("e15", selfie=f"{folder}/pipe.jpg"), "INVALID_INPUT", "not a file of known size"),
        ("a device", line("e16", selfie="/dev/zero"), "INVALID_INPUT", "selfie"),
        (
            "unknown Connection",
            line("e21", selfie="flaky://nobodys@b/x.jpg"),
            "INVALID_INPUT",
            "allowed_image_conn_ids",
        ),
        (
            "above the root",
            line("e22", selfie="file:///../../etc/passwd"),
            "INVALID_INPUT",
            "allowed_image_prefixes",
        ),
        ("unknown workflow", line("e17", workflow_id="nobody's"), "5001", "workflow"),
        (
            "too few documents",
            line("e18", workflow_id="5a4db0c5-0000-4000-8000-000000000003"),
            "INVALID_INPUT",
            "requires 2",
        ),
        ("no back side", line("e19", document_1_back=None), "INVALID_INPUT", "without a back side"),
        ("FACEKI says no", line("code-5006-e20"), "5006", "document"),
        ("short image", line("fine-1", selfie=short), "", ""),
        ("fine", line("fine-2"), "", ""),
    ]


def test_every_kind_of_bad_row(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    cases = every_bad_row(harness)
    manifest = harness.manifest(line for _, line, _, _ in cases)
    done = harness.verify(manifest)
    found = {line["row"]: line for line in harness.lines("errors")}
    for number, (name, _, code, problem) in enumerate(cases, 1):
        if code:
            assert (found[number]["code"], problem in found[number]["problem"]) == (code, True), (
                name,
                found[number],
            )
            assert found[number]["what_to_do"], name
            assert len(json.dumps(found[number])) < 1500
    assert done["decisions"] == {"ACCEPTED": 2}
    assert sum(done["errors"].values()) == len(cases) - 2 == len(found)
    assert faceki.ledger == once(["fine-1", "fine-2"])
    # A further try finds nothing to do, and writes no error twice.
    asked = faceki.counters.requests["verify"]
    assert harness.verify(manifest) == done
    assert len(harness.lines("errors")) == len(found)
    assert faceki.counters.requests["verify"] == asked


def test_user_columns_named_like_shard_fields_are_ignored(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    lines = [harness.line(name, _row=1, _problem="odd") for name in "abc"]
    done = harness.verify(harness.manifest([*lines, {"_row": 1}, {"_row": 1, "_problem": "odd"}]))
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 3}, {"NO_IDENTIFIER": 2})
    assert harness.errors() == dict.fromkeys((4, 5), "NO_IDENTIFIER")
    assert {line["row"] for line in harness.lines("results")} == {1, 2, 3}


def test_the_error_for_a_csv_without_a_header_hides_its_values(
    faceki: FacekiSandbox, harness: BatchHarness, caplog: pytest.LogCaptureFixture
) -> None:
    place = harness.folder / "people.csv"
    place.write_text(f"quirinazze@example.com,{harness.selfie},{harness.front}\n")
    with pytest.raises(AirflowFailException, match="it has 3 column.*is the first line a header") as caught:
        harness.verify(place.as_uri())
    assert "quirinazze" not in str(caught.value) + caplog.text


def test_a_csv_of_excel_with_bad_rows(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    place = harness.folder / "people.csv"
    header = "record_identifier,selfie,document_1_front,document_1_back"
    good = f"{harness.selfie},{harness.front},{harness.back}"
    rows = [f"a,{good}", f'"b,{good}', f"c,{good},too,many", "d", f",{good}", "", f"e,{good}"]
    place.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([header, *rows, ""]).encode())
    done = harness.verify(place.as_uri())
    assert harness.results() == {"a": "ACCEPTED", "e": "ACCEPTED"}
    assert harness.errors() == {2: "BAD_ROW", 3: "BAD_ROW", 4: "INVALID_INPUT", 5: "NO_IDENTIFIER"}
    assert done["rows"] == 6


@pytest.mark.parametrize(
    ("header", "told"),
    [
        pytest.param("who,selfie,document_1_front", "no column 'record_identifier'", id="identifier"),
        pytest.param("record_identifier,document_1_front", "no column 'selfie'", id="selfie"),
        pytest.param("record_identifier,selfie", "no column 'document_1_front'", id="document"),
    ],
)
def test_a_manifest_without_a_column_is_refused_before_anything_is_paid(
    faceki: FacekiSandbox, harness: BatchHarness, header: str, told: str
) -> None:
    place = harness.folder / "people.csv"
    place.write_text(f"{header}\na,b,c\n")
    with pytest.raises(AirflowFailException, match=told):
        harness.verify(place.as_uri())
    assert not harness.out.exists()
    assert faceki.counters.requests == {}


def test_a_high_error_rate_ends_the_batch_early(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MIN_ROWS_FOR_ERROR_RATE", 10)
    lines = [harness.line(f"p-{number}", **({"selfie": None} if number % 2 else {})) for number in range(400)]
    with pytest.raises(
        AirflowFailException, match=r"rows are errors, more than max_error_rate=0.3; \d+ of 400"
    ):
        harness.verify(harness.manifest(lines), max_error_rate=0.3, concurrency=2)
    assert len(harness.lines("results")) + len(harness.lines("errors")) < 300
    assert faceki.ledger == once(harness.results())


def test_a_high_error_rate_fails_a_small_batch_at_its_end(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    lines = [harness.line("a"), harness.line("b", selfie=None)]
    with pytest.raises(AirflowFailException, match="1 of 2 rows are errors"):
        harness.verify(harness.manifest(lines), max_error_rate=0.4)
    assert harness.results() == {"a": "ACCEPTED"}
    assert harness.verify(harness.manifest(lines), max_error_rate=0.5)["errors"] == {"INVALID_INPUT": 1}


def test_full_records_only_if_asked_for(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    manifest = harness.everybody("a", "code-5004-b")
    done = harness.verify(manifest, include_records=True)
    records = {line["record_identifier"]: line["record"] for line in harness.lines("records")}
    assert {name: record["requestId"] for name, record in records.items()} == {
        line["record_identifier"]: line["request_id"] for line in harness.lines("results")
    }
    assert records["a"]["document_data"]
    assert done["records_path"] == f"{harness.out.as_uri()}/records"
    harness.verify(manifest, include_records=True)
    assert len(harness.lines("records")) == 2


def test_records_can_be_requested_by_a_later_try(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    manifest = harness.everybody("a", "b")
    harness.verify(manifest)
    harness.verify(manifest, include_records=True)
    assert {line["record_identifier"] for line in harness.lines("records")} == {"a", "b"}
    assert faceki.ledger == once("ab")


def test_a_record_that_cannot_be_fetched_bills_no_row_again(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    manifest = harness.everybody("a", "b", "c")
    faceki.add_fault("status", route="records", status=503, record_identifier="", count=None)
    faceki.add_fault("status", route="records_by_request", status=503, count=None)
    for _ in range(2):
        with pytest.raises(api.OutcomeUnknownError, match="3 of 3 rows could not be finished"):
            harness.verify(manifest, include_records=True, assume_new=True)
        assert set(harness.results()) == set("abc")
    faceki.clear_faults()
    harness.verify(manifest, include_records=True, assume_new=True)
    assert {line["record_identifier"] for line in harness.lines("records")} == set("abc")
    assert faceki.ledger == once("abc")


def test_a_record_that_is_not_kept_is_written_once_as_null(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    manifest = harness.everybody("a")
    harness.verify(manifest)
    faceki.add_fault("code", route="records", code=8013, count=None)
    for _ in range(2):
        harness.verify(manifest, include_records=True)
        assert [line["record"] for line in harness.lines("records")] == [None]


def test_rules_that_cannot_be_fetched_are_requested_once(
    faceki: FacekiSandbox, harness: BatchHarness, caplog: pytest.LogCaptureFixture
) -> None:
    faceki.add_fault("status", route="rules", status=404, count=None)
    with caplog.at_level(logging.WARNING):
        harness.verify(harness.everybody(*map(str, range(40))))
    assert faceki.counters.requests["rules"] == 1
    assert len(harness.results()) == 40


def test_an_error_code_instead_of_rules_stops_the_batch(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    faceki.add_fault("code", route="rules", code=5003, count=None)
    with pytest.raises(AirflowFailException, match="5003"):
        harness.verify(harness.everybody(*map(str, range(40))))
    assert faceki.ledger == {}
    faceki.clear_faults()
    assert harness.verify(harness.everybody(*map(str, range(40))))["decisions"] == {"ACCEPTED": 40}


def test_limits_of_the_connection_hold(
    faceki_sandbox: FacekiSandbox, connect: Connect, harness: BatchHarness
) -> None:
    connect(max_concurrency=3)
    faceki_sandbox.settings.latency = 0.05
    harness.verify(harness.everybody(*map(str, range(30))), concurrency=12)
    assert faceki_sandbox.counters.in_flight_max <= 3


def test_the_rate_limit_of_the_connection_holds(
    faceki_sandbox: FacekiSandbox, connect: Connect, harness: BatchHarness
) -> None:
    connect(max_requests_per_second=20)
    harness.verify(harness.everybody(*map(str, range(30))), concurrency=12)
    times = sorted(bill.at for bill in faceki_sandbox.bills)
    assert times[-1] - times[0] >= 29 / 20 * 0.9


def test_an_empty_manifest(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    done = harness.verify(harness.manifest([]))
    assert (done["rows"], done["decisions"], done["errors"]) == (0, {}, {})


def test_an_output_folder_of_another_batch_is_rejected(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    harness.verify(harness.everybody("a"), batch_id="monday")
    with pytest.raises(AirflowFailException, match="contains another batch, 'monday'; this one is 'tuesday'"):
        harness.verify(harness.everybody("a", "b"), batch_id="tuesday")
    assert faceki.ledger == once("a")
    assert harness.verify(harness.everybody("a", "b"), batch_id="monday")["decisions"] == {"ACCEPTED": 2}


def test_without_a_batch_id_a_folder_of_another_run_is_rejected(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    harness.verify(harness.everybody("a"))
    with pytest.raises(AirflowFailException, match="contains another batch"):
        harness.batch(harness.everybody("a", "b")).execute(context(ti=TaskInstance(run_id="tomorrow")))
    assert faceki.ledger == once("a")


def test_results_use_the_identifiers_of_the_manifest(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    faceki.settings.rejection_result = "missing"
    harness.verify(harness.everybody("code-5004-a", "b"))
    assert set(harness.results()) == {"code-5004-a", "b"}
    assert all("link" not in line for line in harness.lines("results"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param({"concurrency": 0}, "concurrency must be a whole number", id="nobody at work"),
        pytest.param({"concurrency": 257}, "from 1 to 256, not 257", id="too many at work"),
        pytest.param({"max_error_rate": "0.5"}, "max_error_rate must be a number", id="share as text"),
        pytest.param({"max_error_rate": float("nan")}, "max_error_rate must be a number", id="NaN"),
        pytest.param(
            {"lookup_timeout": -1}, "lookup_timeout must be a number of seconds from 0", id="lookup_timeout"
        ),
        pytest.param({"resubmit_after": "soon"}, "resubmit_after must be a number", id="soon"),
        pytest.param({"resubmit_after": float("nan")}, "resubmit_after must be a number", id="time NaN"),
        pytest.param({"columns": {"selfie": None}}, "selfie must have a name", id="no name"),
        pytest.param(
            {"resubmit": "often"}, "resubmit must be one of if_absent, never, always", id="resubmit"
        ),
        pytest.param({"assume_new": "False"}, "assume_new must be True or False", id="text for a bool"),
        pytest.param({"max_verifications": -1}, "max_verifications must be a whole number", id="below 0"),
        pytest.param(
            {"max_verifications": True}, "max_verifications must be a whole number", id="ceiling bool"
        ),
        pytest.param({"concurrency": True}, "concurrency must be a whole number", id="bool"),
        pytest.param({"max_error_rate": 1.5}, "max_error_rate must be a number between", id="share"),
        pytest.param({"columns": {"identifier": "id"}}, "columns: unknown identifier", id="column"),
        pytest.param({"manifest_format": "xlsx"}, "manifest_format must be one of", id="format"),
        pytest.param({"resize_to": 0}, "resize_to", id="pixels"),
    ],
)
def test_invalid_arguments_are_rejected_while_the_dag_is_parsed(
    harness: BatchHarness, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        harness.batch("file:///people.ndjson", **arguments)


def test_a_folder_that_nothing_can_be_written_to(
    faceki: FacekiSandbox, harness: BatchHarness, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AirflowFailException, match="cannot"):
        harness.verify(harness.everybody("a"), output_path=(tmp_path / "file" / "out").as_uri())
    assert faceki.ledger == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param({"resize_to": 64}, "resize_to needs Pillow", id="Pillow"),
        pytest.param({"workflow_id": "nobody's"}, "workflow", id="unknown workflow"),
        pytest.param({"output_path": "gopher://bucket/out"}, "no storage for", id="output"),
        pytest.param(
            {"output_conn_id": "nobodys"}, "output_conn_id: there is no Connection", id="output's Connection"
        ),
        pytest.param(
            {"image_conn_id": "nobodys"}, "there is no Connection 'nobodys'", id="images' Connection"
        ),
        pytest.param(
            {"manifest_conn_id": "nobodys"},
            "manifest_conn_id: there is no Connection",
            id="manifest's Connection",
        ),
    ],
)
def test_detectable_mistakes_fail_the_task_before_any_charge(
    faceki: FacekiSandbox,
    harness: BatchHarness,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    told: str,
) -> None:
    if "resize_to" in arguments:
        monkeypatch.setattr(batch, "find_spec", lambda name: None)
    with pytest.raises(AirflowFailException, match=told):
        harness.verify(harness.everybody(*map(str, range(30))), **arguments)
    assert (faceki.ledger, harness.lines("errors")) == ({}, [])
    assert faceki.counters.requests.get("verify", 0) == 0


def test_max_verifications_is_logged_and_a_higher_limit_resumes(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    names = [f"accepted-{number}" for number in range(40)]
    manifest = harness.everybody(*names)
    for _ in range(2):
        with pytest.raises(
            AirflowFailException, match=r"max_verifications=25 is reached.* 15 of 40 rows"
        ) as caught:
            harness.verify(manifest, max_verifications=25)
        assert "raise max_verifications and clear the task" in str(caught.value)
        assert len(faceki.ledger) == 25
    assert harness.verify(manifest, max_verifications=40)["decisions"] == {"ACCEPTED": 40}
    assert faceki.ledger == once(names)


def test_a_second_batch_finds_the_rows_billed_by_the_first(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    manifest = harness.everybody("a", "b")
    harness.verify(manifest)
    done = harness.verify(harness.everybody("a", "b", "c"), output_path=(harness.folder / "second").as_uri())
    assert (done["decisions"], done["found"]) == ({"ACCEPTED": 3}, 2)
    assert faceki.ledger == once("abc")
    everybody = harness.everybody("a", "b", "c")
    done = harness.verify(everybody, output_path=(harness.folder / "third").as_uri(), resubmit="always")
    assert (done["found"], faceki.ledger) == (0, {"a": 2, "b": 2, "c": 2})


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        pytest.param("people.ndjson", [b"{1", b"{2"], id="JSON"),
        pytest.param("people.csv", [b'x,"1', b'x,"2'], id="quote"),
        pytest.param("people.csv", [b"a,b,c,d,e,f,g,1", b"a,b,c,d,e,f,g,2"], id="columns"),
    ],
)
def test_each_unreadable_row_of_a_replaced_manifest_is_an_error(
    faceki: FacekiSandbox, harness: BatchHarness, name: str, lines: list[bytes]
) -> None:
    head = b"record_identifier,selfie,document_1_front"
    for line in [*lines, *lines]:
        with pytest.raises(AirflowFailException, match="no row succeeded"):
            harness.verify(harness.manifest([head, line] if name.endswith(".csv") else [line], name))
    assert [(line["row"], line["code"]) for line in harness.lines("errors")] == [(1, "BAD_ROW")] * 2
