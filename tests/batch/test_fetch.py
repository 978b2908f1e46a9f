# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Records become tables that are complete at any time and contain only the requested data."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, overload

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from pyarrow import parquet

from airflow_provider_faceki import api
from airflow_provider_faceki.api.tables import TABLES
from airflow_provider_faceki.batch import export, manifest
from airflow_provider_faceki.operators.batch import FacekiBatchFetchRecordsOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.records import Record
from airflow_provider_faceki.sandbox.backend.store import Store
from tests.airflow.canaries import NOWHERE, PERSON, files_below
from tests.airflow.fakes import TaskInstance, context
from tests.batch.conftest import Connect
from tests.batch.harness import BatchHarness
from tests.sandbox_delays import HeldDelays
from tests.waiting import wait_until

KEEP = {f"{table}.*": "keep" for table in TABLES}


def known(faceki: FacekiSandbox, count: int) -> list[str]:
    names = [f"case-{number}" for number in range(count)]
    for name in names:
        faceki.add_record(name)
    return names


def table(harness: BatchHarness, name: str) -> list[dict[str, Any]]:
    return harness.lines(name)


def test_tables_counts_and_uris(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    names = known(faceki, 3)
    faceki.add_record(names[0], "DECLINED", code=5008)
    done = harness.fetch(identifiers=[*names, "nobody", "", names[1]])
    assert (done["rows"], done["decisions"]) == (6, {"ACCEPTED": 3, "DECLINED": 1})
    assert done["errors"] == {"NOT_FOUND": 1, "NO_IDENTIFIER": 1, "DUPLICATE_IDENTIFIER": 1}
    assert sorted(row["record_identifier"] for row in table(harness, "verifications")) == ["case-0", *names]
    requests = {row["request_id"] for row in table(harness, "verifications")}
    assert {row["request_id"] for row in table(harness, "documents")} == requests
    assert {line["row"]: line["record_identifier"] for line in table(harness, "errors")} == {
        4: "nobody",
        5: None,
        6: "case-1",
    }
    assert [Path(uri.removeprefix("file://")).is_file() for uri in done["tables"].values()] == [True] * 4
    assert faceki.counters.tokens_issued == 1
    assert harness.parts("_journal") == []


VALUES = {
    "record_identifier": "case-1",
    "requestId": "0b6c5a52-5c1e-4a6d-8a43-0c1f3f6a9d10",
    "face_id": "face-of-nobody",
    "link": "5b0d2f55-7e0c-4a5e-9b33-31a3d0d9c0de",
}

STRANGER = {"record_identifier": "x", "requestId": "y", "face_id": "z", "link": "l", "decision": "DECLINED"}


@pytest.mark.parametrize(
    ("by", "field"),
    [
        ("record_identifier", "record_identifier"),
        ("request_id", "requestId"),
        ("face_id", "face_id"),
        ("link", "link"),
    ],
)
def test_by_each_kind_of_identifier(
    faceki: FacekiSandbox, harness: BatchHarness, caplog: pytest.LogCaptureFixture, by: str, field: str
) -> None:
    faceki.add_record("case-1", fields=VALUES)
    unknown = "9d1c2b7e-90aa-4b1e-8a52-b6f0f3c3beef"
    with caplog.at_level(logging.DEBUG):
        done = harness.fetch(identifiers=[{by: VALUES[field]}, {by: unknown}], by=by)
    assert done["decisions"] == {"ACCEPTED": 1}
    (error,) = table(harness, "errors")
    assert (error["row"], error.get(by)) == (2, None if by == "link" else unknown)
    assert unknown not in caplog.text
    if by == "link":
        # Anyone who has a link can open its page, so the link must not appear anywhere.
        assert VALUES["link"] not in caplog.text
        content = b"".join(content for _, content in files_below(harness.out))
        assert not any(link.encode() in content for link in (VALUES["link"], unknown))


class Lazy(Sequence[object]):
    """Sequence like Airflow's lazy sequence of XComs of mapped tasks: each access is a database query."""

    def __init__(self, items: list[object]) -> None:
        self.items = items
        self.asked: list[object] = []

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, key: int) -> object: ...
    @overload
    def __getitem__(self, key: slice) -> list[object]: ...
    def __getitem__(self, key: int | slice) -> object:
        self.asked.append(key)
        return self.items[key]


def test_a_lazy_sequence_is_read_in_slices(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "IDENTIFIERS_PER_QUERY", 4)
    lazy = Lazy([{"record_identifier": name} for name in known(faceki, 10)])
    assert harness.fetch(identifiers=lazy)["decisions"] == {"ACCEPTED": 10}
    assert lazy.asked == [slice(0, 4), slice(4, 8), slice(8, 12)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param(
            {"identifiers": "['a', 'b']"}, "identifiers must be a list, not str", id="a rendered text"
        ),
        pytest.param({"identifiers": {"a": 1}}, "identifiers must be a list, not dict", id="an object"),
        pytest.param({}, "exactly one of identifiers and manifest", id="nothing"),
        pytest.param({"identifiers": [], "manifest": "file:///m.csv"}, "exactly one of", id="both"),
    ],
)
def test_an_invalid_list_of_identifiers_is_rejected(
    faceki: FacekiSandbox, harness: BatchHarness, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(AirflowFailException, match=told):
        harness.fetch(**given)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param({"by": "name"}, "by must be one of", id="by"),
        pytest.param({"output_format": "xlsx"}, "output_format must be one of", id="format"),
        pytest.param({"personal_data": {"documents.nme": "keep"}}, "no column 'documents.nme'", id="policy"),
    ],
)
def test_invalid_arguments_are_rejected_while_the_dag_is_parsed(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        FacekiBatchFetchRecordsOperator(task_id="fetch", output_path="/out", **arguments)


def test_no_personal_data_is_stored_or_logged_by_default(
    faceki: FacekiSandbox,
    harness: BatchHarness,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    faceki.settings.person = PERSON
    names = [*known(faceki, 5), "nobody"]
    with caplog.at_level(logging.DEBUG):
        done = harness.fetch(identifiers=names)
        written = dict(files_below(harness.out))
        done_parquet = harness.fetch(identifiers=names, output_format="parquet")
    written |= dict(files_below(harness.out))
    printed = "".join(capsys.readouterr()) + caplog.text
    left = {**written, "log": printed.encode(), "XCom": json.dumps([done, done_parquet]).encode()}
    assert {
        name: NOWHERE.found_in(content) for name, content in left.items() if NOWHERE.found_in(content)
    } == {}
    # This proves that the search works: the canaries are found if their columns are requested.
    harness.fetch(identifiers=names, personal_data=KEEP)
    assert set(PERSON) <= NOWHERE.found_in(b"".join(content for _, content in files_below(harness.out)))


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        pytest.param({}, "jane@example.com", id="kept"),
        pytest.param({"verifications.record_identifier": "drop"}, None, id="dropped"),
        pytest.param({"verifications.record_identifier": "hash"}, "hash", id="hashed"),
    ],
)
def test_the_error_table_applies_the_policy_to_identifiers(
    faceki_sandbox: FacekiSandbox,
    connect: Connect,
    harness: BatchHarness,
    policy: dict[str, str],
    shown: str | None,
) -> None:
    connect(pii_hash_secret="a key that nobody guesses, made up here")
    with pytest.raises(AirflowFailException, match=r"no row succeeded \(1 NOT_FOUND\)"):
        harness.fetch(identifiers=["jane@example.com"], personal_data=policy)
    (error,) = table(harness, "errors")
    found: Any = error.get("record_identifier")
    assert (found, error["row"]) == (shown, 1) if shown != "hash" else re.fullmatch("[0-9a-f]{64}", found)


def test_missing_and_odd_decisions_are_counted_as_undecided_or_other(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    for name, decision in {"a": None, "b": "", "c": "DECLINED Jane Doe, born 1990"}.items():
        faceki.add_record(name, fields={"decision": decision})
    done = harness.fetch(identifiers=["a", "b", "c"])
    assert done["decisions"] == {"UNDECIDED": 2, "OTHER": 1}
    assert "Jane" not in "".join(path.read_text() for path in harness.parts("."))


@pytest.mark.parametrize("value", [20260001, 2026.1, True, {"record_identifier": 20260001}, [1]])
def test_a_numeric_identifier_is_rejected_as_possibly_changed(
    faceki: FacekiSandbox, harness: BatchHarness, value: object
) -> None:
    faceki.add_record("2026_0001")
    faceki.add_record("20260001", "DECLINED")
    done = harness.fetch(identifiers=["2026_0001", value])
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 1}, {"BAD_ROW": 1})
    (error,) = table(harness, "errors")
    assert "render_template_as_native_obj" in error["problem"]
    assert "20260001 " not in error["problem"].replace("becomes 20260001", "")


@pytest.mark.parametrize("by", ["record_identifier", "request_id", "link", "face_id"])
def test_records_of_other_identifiers_are_dropped(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    # FACEKI ignores a filter that it does not know, and returns all records. Here the sandbox does so for each filter.
    documents: list[dict[str, object]] = [{**VALUES, "decision": "ACCEPTED"}, {**STRANGER}]
    everybody = [Record("", "", document, "") for document in documents]
    monkeypatch.setattr(Store, "find", lambda store, **filters: everybody)
    own = {"record_identifier": "case-1", "request_id": VALUES["requestId"].upper()}.get(by) or VALUES[by]
    done = harness.fetch(identifiers=[own, "nobody"], by=by)
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 1}, {"UNEXPECTED_RESPONSE": 1})
    assert [row["request_id"] for row in table(harness, "verifications")] == [VALUES["requestId"]]


def test_personal_data_is_kept_or_hashed_only_as_the_policy_says(
    faceki_sandbox: FacekiSandbox, connect: Connect, harness: BatchHarness
) -> None:
    connect(pii_hash_secret="a key that nobody guesses, made up here")
    faceki_sandbox.settings.person = PERSON
    names = known(faceki_sandbox, 2)
    policy = {"documents.last_name": "keep", "documents.document_number": "hash"}
    hashes = set()
    for _ in range(2):
        harness.fetch(identifiers=names, personal_data=policy)
        rows = table(harness, "documents")
        assert {row["last_name"] for row in rows} == {PERSON["last_name"]}
        hashes |= {row["document_number"] for row in rows}
    (only,) = hashes
    assert re.fullmatch("[0-9a-f]{64}", only)
    content = b"".join(content for _, content in files_below(harness.out))
    assert NOWHERE.found_in(content) == {"last_name"}


def test_parquet_files(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    done = harness.fetch(identifiers=known(faceki, 4), output_format="parquet", personal_data=KEEP)
    for name, uri in done["tables"].items():
        made = parquet.read_table(uri.removeprefix("file://"))
        assert made.schema.names == [column.name for column in TABLES[name]]
    assert parquet.read_table(done["tables"]["verifications"].removeprefix("file://")).num_rows == 4


def test_partitioned_by_the_runs_date(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    late = datetime.fromisoformat("2026-01-31T23:30:00-02:00")
    operator: Any = FacekiBatchFetchRecordsOperator(
        task_id="fetch",
        output_path=harness.out.as_uri(),
        identifiers=known(faceki, 1),
        partition_by_date=True,
    )
    done = operator.execute(context(dag_run=SimpleNamespace(logical_date=late)))
    assert all("/date=2026-02-01/part-" in uri for uri in [*done["tables"].values(), done["errors_path"]])


def test_a_rerun_replaces_only_the_files_of_its_own_run(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    names = known(faceki, 6)

    def go(run_id: str, identifiers: list[str]) -> None:
        operator: Any = FacekiBatchFetchRecordsOperator(
            task_id="fetch", output_path=harness.out.as_uri(), identifiers=identifiers
        )
        operator.execute(context(ti=TaskInstance(run_id=run_id)))

    go("monday", names)
    before = {path: path.read_bytes() for path in harness.parts("verifications")}
    go("tuesday", names[:2])
    go("tuesday", names[3:4])
    assert {path: path.read_bytes() for path in before} == before
    others = [path for path in harness.parts("verifications") if path not in before]
    assert [json.loads(path.read_text())["record_identifier"] for path in others] == [names[3]]


def test_readers_never_see_a_partial_table(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    names = known(faceki, 40)
    done = harness.fetch(identifiers=names)
    place = Path(done["tables"]["verifications"].removeprefix("file://"))
    seen: set[int] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(len(place.read_text().splitlines()))

    reader = threading.Thread(target=read)
    reader.start()
    for count in (10, 40, 25):
        harness.fetch(identifiers=names[:count])
    over.set()
    reader.join()
    assert seen <= {40, 10, 25}


def test_the_next_try_fetches_only_the_missing_records(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    names = known(faceki, 200)
    faceki.add_fault("status", route="records", status=429, retry_after=0, skip=120, count=None)
    with pytest.raises(api.RateLimitError):
        harness.fetch(identifiers=names)
    assert harness.parts("verifications") == []
    faceki.clear_faults()
    asked = faceki.counters.requests["records"]
    assert harness.fetch(identifiers=names)["decisions"] == {"ACCEPTED": 200}
    assert faceki.counters.requests["records"] - asked == 80
    assert harness.parts("_journal") == []


def test_the_next_try_ignores_an_old_journal_or_one_of_another_policy(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    faceki.settings.person = PERSON
    names = known(faceki, 30)
    faceki.add_fault("code", route="records", code=500, record_identifier="case-29", count=None)
    with pytest.raises(api.OutcomeUnknownError, match="1 of 30 rows"):
        harness.fetch(identifiers=names, personal_data=KEEP)
    faceki.clear_faults()
    harness.fetch(identifiers=names)
    assert NOWHERE.found_in(b"".join(content for _, content in files_below(harness.out))) == set()
    assert len(table(harness, "verifications")) == 30
    faceki.add_fault("code", route="records", code=500, record_identifier="case-29", count=None)
    with pytest.raises(api.OutcomeUnknownError):
        harness.fetch(identifiers=names)
    faceki.clear_faults()
    long_ago = time.time() - export.JOURNAL_TTL_SECONDS - 1
    for part in harness.parts("_journal"):
        part.write_text(re.sub(r'"at": \d+', f'"at": {long_ago:.0f}', part.read_text()))
    asked = faceki.counters.requests["records"]
    harness.fetch(identifiers=names)
    assert faceki.counters.requests["records"] - asked == 30


def test_a_transient_failure_of_a_record_is_retried_at_the_end(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    names = known(faceki, 30)
    faceki.add_fault("code", route="records", code=500, record_identifier="case-7", count=2)
    assert harness.fetch(identifiers=names)["decisions"] == {"ACCEPTED": 30}


def test_a_killed_fetch_keeps_its_fetched_records(
    faceki_sandbox: FacekiSandbox, connect: Connect, harness: BatchHarness, held_delays: HeldDelays
) -> None:
    connect(timeout=60)
    names = known(faceki_sandbox, 100)
    faceki_sandbox.add_fault("slow", route="records", record_identifier="case-50", delay=20.0, count=None)
    operator: Any = FacekiBatchFetchRecordsOperator(
        task_id="fetch", output_path=harness.out.as_uri(), identifiers=names, concurrency=4
    )

    def kill() -> None:
        wait_until(lambda: faceki_sandbox.counters.requests.get("records", 0) >= 100)
        wait_until(lambda: faceki_sandbox.counters.in_flight == 1)
        operator.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(AirflowException, match="the task was killed"):
        operator.execute(context())
    killer.join()
    # The operator did not wait for the slow response. Otherwise the request would have timed out and been repeated.
    assert held_delays.begun == [20.0]
    assert faceki_sandbox.counters.in_flight == 1
    faceki_sandbox.clear_faults()
    held_delays.end()
    # The thread of the killed operator must not send a request during a later test.
    wait_until(lambda: faceki_sandbox.counters.in_flight == 0)
    asked = faceki_sandbox.counters.requests["records"]
    assert harness.fetch(identifiers=names)["decisions"] == {"ACCEPTED": 100}
    assert faceki_sandbox.counters.requests["records"] - asked == 1
