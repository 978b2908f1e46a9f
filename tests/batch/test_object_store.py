# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Manifests, images, outputs, shards, journals and reports on a server with the S3 protocol."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from airflow_provider_faceki import api, storage_interface
from airflow_provider_faceki.batch.manifest import read_manifest, split
from airflow_provider_faceki.batch.manifest_schema import COLUMNS
from airflow_provider_faceki.operators.images import FacekiCheckImageOperator
from airflow_provider_faceki.operators.reports import FacekiPdfReportOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import execute
from tests.batch.conftest import Connect
from tests.batch.harness import BatchHarness, names, once
from tests.billing.image_files import image_bytes
from tests.object_store import CONN_ID, FAULTY_CONN_ID, Fault, ObjectStore

pytestmark = pytest.mark.process

IN_MANIFEST = {name: name for name in COLUMNS}
Rows = list[dict[str, str]]


def as_ndjson(rows: Rows) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def as_csv(rows: Rows) -> bytes:
    header = list(rows[0])
    return "".join(",".join(line) + "\r\n" for line in [header, *([*row.values()] for row in rows)]).encode()


def as_parquet(rows: Rows) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


FORMATS = [
    pytest.param("ndjson", as_ndjson, id="ndjson"),
    pytest.param("csv", as_csv, id="csv"),
    pytest.param("parquet", as_parquet, id="parquet"),
]
Encode = Callable[[Rows], bytes]


def rows_on_s3(store: ObjectStore, identifiers: list[str]) -> Rows:
    store.put("images/face.jpg", image_bytes())
    uri = "s3://kyc/images/face.jpg"
    return [
        {"record_identifier": name, "selfie": uri, "document_1_front": uri, "document_1_back": uri}
        for name in identifiers
    ]


def lines(store: ObjectStore, prefix: str) -> list[dict[str, Any]]:
    return [json.loads(line) for key in store.keys(prefix) for line in store.get(key).splitlines()]


@pytest.mark.parametrize(("ending", "encode"), FORMATS)
def test_a_batch_of_which_everything_is_on_s3(
    faceki: FacekiSandbox, harness: BatchHarness, object_store: ObjectStore, ending: str, encode: Encode
) -> None:
    identifiers = names(20)  # more than the 16 threads of a batch
    object_store.put(f"people.{ending}", encode(rows_on_s3(object_store, identifiers)))
    places: Mapping[str, Any] = {
        "output_path": "s3://kyc/out",
        "manifest_conn_id": CONN_ID,
        "image_conn_id": CONN_ID,
        "output_conn_id": CONN_ID,
        "include_records": True,
    }
    for _ in range(2):
        done = harness.verify(f"s3://kyc/people.{ending}", **places)
        assert (done["rows"], done["decisions"], done["errors"]) == (20, {"ACCEPTED": 20}, {})
    assert faceki.ledger == once(identifiers)
    assert sorted(line["record_identifier"] for line in lines(object_store, "out/results/")) == sorted(
        identifiers
    )
    assert len(lines(object_store, "out/records/")) == 20
    # Each identifier is counted once, because a row can have two intents (announcements of its sending). On a slow
    # store, a row waits until the lease has been checked again, and then its intent is written again.
    intents = lines(object_store, "out/_journal/intents/")
    assert len({intent["record_identifier"] for intent in intents}) == 20


@pytest.mark.parametrize("output_format", ["ndjson", "parquet"])
@pytest.mark.parametrize(("ending", "encode"), FORMATS)
def test_records_are_fetched_from_a_manifest_on_s3_into_tables_there(
    faceki: FacekiSandbox,
    harness: BatchHarness,
    object_store: ObjectStore,
    ending: str,
    encode: Encode,
    output_format: str,
) -> None:
    identifiers = [f"known-{number}" for number in range(5)]
    for name in identifiers:
        faceki.add_record(name)
    manifest = object_store.put(
        f"known.{ending}", encode([{"record_identifier": name} for name in identifiers])
    )
    done = harness.fetch(
        manifest=manifest, output_path=object_store.uri("tables"), output_format=output_format
    )
    assert done["decisions"] == {"ACCEPTED": 5}
    (key,) = object_store.keys("tables/verifications/")
    content = object_store.get(key)
    rows = (
        parquet.read_table(io.BytesIO(content)).to_pylist()
        if output_format == "parquet"
        else [json.loads(line) for line in content.splitlines()]
    )
    assert sorted(row["record_identifier"] for row in rows) == identifiers
    assert lines(object_store, "tables/_journal/") == []


@pytest.mark.parametrize(("ending", "encode"), FORMATS)
def test_a_manifest_on_s3_is_split_there(object_store: ObjectStore, ending: str, encode: Encode) -> None:
    rows = rows_on_s3(object_store, names(50))
    manifest = object_store.put(f"people.{ending}", encode(rows))
    uris = split(manifest, object_store.uri("shards"), 3, IN_MANIFEST)
    assert object_store.keys("shards/") == [f"shards/shard-00{n}-of-003.ndjson" for n in (1, 2, 3)]
    found = [row for uri in uris for row in read_manifest(uri, IN_MANIFEST)]
    assert sorted(row.number for row in found) == list(range(1, 51))
    assert [row.values for row in sorted(found, key=lambda row: row.number)] == rows


def test_long_and_odd_lines_of_a_manifest_on_s3(object_store: ObjectStore) -> None:
    content = b'{"record_identifier": "a"}\r\n\n' + b"x" * 3_000_000 + b'\n{"record_identifier": "b"}'
    found = list(read_manifest(object_store.put("odd.ndjson", content), IN_MANIFEST))
    assert [row.values.get("record_identifier") for row in found] == ["a", None, "b"]
    assert "longer than" in str(found[1].problem)


def test_a_report_and_an_image_on_s3(
    faceki: FacekiSandbox, connect: Connect, object_store: ObjectStore
) -> None:
    connect(pdf_report_path=faceki.settings.pdf_path)
    request_id = str(faceki.add_record("a")["requestId"])
    target = object_store.uri("reports/a.pdf")
    path, _ = execute(FacekiPdfReportOperator(task_id="report", request_id=request_id, output_path=target))
    assert path == target
    assert object_store.get("reports/a.pdf").startswith(b"%PDF")
    image = object_store.put("images/a.jpg", image_bytes())
    checked, _ = execute(FacekiCheckImageOperator(task_id="check", image=image))
    assert isinstance(checked, dict)


def test_a_store_that_refuses_leaves_all_rows_open(
    faceki: FacekiSandbox, harness: BatchHarness, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setattr(storage_interface, "RETRY_PAUSES_SECONDS", (0.0,))
    identifiers = names(5)
    manifest = object_store.put("people.ndjson", as_ndjson(rows_on_s3(object_store, identifiers)))
    object_store.choose_fault = lambda method, path: Fault(403, "AccessDenied")
    with pytest.raises(api.OutcomeUnknownError, match="5 of 5 rows could not be finished"):
        harness.verify(manifest, image_conn_id=FAULTY_CONN_ID)
    assert (harness.lines("errors"), faceki.ledger) == ([], {})
    object_store.choose_fault = lambda method, path: None
    assert harness.verify(manifest, image_conn_id=FAULTY_CONN_ID)["decisions"] == {"ACCEPTED": 5}
    assert faceki.ledger == once(identifiers)
