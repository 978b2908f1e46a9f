# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A record becomes typed columns without loss, and only the requested columns are written."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pyarrow import parquet

from airflow_provider_faceki import api
from airflow_provider_faceki.api.errors import ConfigurationError, ValidationError
from airflow_provider_faceki.api.tables import TABLES, table_rows
from airflow_provider_faceki.batch.table_writers import ColumnPolicy, ParquetWriter

RECORD: dict[str, Any] = {
    "requestId": "r-1",
    "record_identifier": "undefined",
    "decision": "accepted",
    "errorCodes": ["5008", {"code": 5004}, "odd"],
    "verification_summary": {"face_verified": True, "new_flag": False},
    "selfie_data": {"liveness_pass": "yes", "score": 0.5},
    "createdAt": "2026-01-31T10:00:00+02:00",
    "updatedAt": "yesterday",
    "warnings": ["dim"],
    "notes": [],
    "document_data": [
        {
            "full_name": "Zoë Ünreal \ud800",
            "age": "26",
            "date_of_birth": "1999-12-31",
            "expiry": "",
            "issued": "31/12/1999",
            "passed": True,
            "document_face_match": {"similarity": "99.5", "confidence": "NaN", "model": "x"},
        },
        "a text",
    ],
    "aml": {"odd": 1},
    "images": [{"documentName": "ID", "side": "front", "key": "k", "extra": 1}],
}


def rows(**changed: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    for table, row in table_rows(api.VerificationRecord({**RECORD, **changed})):
        found[table].append(row)
    return found


def test_types() -> None:
    found = rows()
    first, document = found["verifications"][0], found["documents"][0]
    assert (first["request_id"], first["record_identifier"], first["decision"]) == ("r-1", None, "ACCEPTED")
    assert first["created_at"] == datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert (first["updated_at"], first["liveness_pass"], first["face_verified"]) == (None, None, True)
    assert [code["code"] for code in json.loads(first["error_codes"])] == [5008, 5004]
    assert (document["age"], document["date_of_birth"], document["expiry"]) == (26, date(1999, 12, 31), None)
    assert (document["face_similarity"], document["face_confidence"]) == (99.5, None)
    assert document["full_name"] == "Zoë Ünreal ?"
    assert (document["request_id"], document["position"], document["passed"]) == ("r-1", 0, True)


def test_a_free_text_decision_is_kept_only_with_personal_data() -> None:
    first = rows(decision="DECLINED Jane Doe, born 1990")["verifications"][0]
    assert first["decision"] == "OTHER"
    assert json.loads(first["other"])["decision"] == "DECLINED Jane Doe, born 1990"
    assert "Jane" not in json.dumps(ColumnPolicy({}).row("verifications", first))


def test_the_text_of_a_decision_is_kept_if_its_key_is_spelled_otherwise() -> None:
    record = api.VerificationRecord({"requestId": "r1", "Decision": "Please ask Mr. Smith"})
    (_, first), *_ = table_rows(record)
    assert first["decision"] == "OTHER"
    assert json.loads(str(first["other"])) == {"decision": "Please ask Mr. Smith"}


def test_fields_without_a_column_are_kept_in_the_other_column() -> None:
    found = rows()
    assert json.loads(found["verifications"][0]["other"]) == {
        "verification_summary": {"new_flag": False},
        "selfie_data": {"liveness_pass": "yes", "score": 0.5},
        "updatedAt": "yesterday",
        "record_identifier": "undefined",
        "errorCodes": ["5008", {"code": 5004}, "odd"],
        "warnings": ["dim"],
        "document_data": ["a text"],
        "aml": [{"odd": 1}],
    }
    assert json.loads(found["documents"][0]["other"]) == {
        "issued": "31/12/1999",
        "document_face_match": {"confidence": "NaN", "model": "x"},
    }
    assert json.loads(found["images"][0]["other"]) == {"extra": 1}


@pytest.mark.parametrize("odd", [None, "", 1, [], {}, [[]], [None], "x", float("1e300")])
def test_any_field_shape_is_tolerated(odd: Any) -> None:
    for name in RECORD:
        rows(**{name: odd})
        rows(document_data=[dict.fromkeys(RECORD["document_data"][0], odd)])


def test_by_default_only_ids_decisions_codes_flags_and_times() -> None:
    policy = ColumnPolicy({})
    assert {table: [column.name for column in policy.columns(table)] for table in TABLES} == {
        "verifications": [
            "request_id", "record_identifier", "face_id", "decision", "error_codes", "face_verified",
            "selfie_liveness_verified", "document_verified", "verification_rules_passed",
            "document_liveness_verified", "image_quality", "liveness_pass", "created_at", "updated_at",
        ],
        "documents": ["request_id", "position", "passed"],
        "aml_hits": ["request_id", "position"],
        "images": ["request_id", "position"],
    }  # fmt: skip


def test_a_specific_policy_wins_over_a_wildcard_and_keeps_the_key() -> None:
    policy = ColumnPolicy({"documents.*": "hash", "documents.gender": "drop", "documents.age": "keep"}, "key")
    row = policy.row("documents", rows()["documents"][0])
    assert (row["request_id"], row["age"], "gender" in row) == ("r-1", 26, False)
    assert len(str(row["full_name"])) == 64


def test_equal_values_have_equal_hashes_only_under_the_same_key() -> None:
    def hashed(name: Any, key: str = "key") -> object:
        return ColumnPolicy({"documents.full_name": "hash"}, key).row("documents", {"full_name": name})[
            "full_name"
        ]

    assert hashed("Zoë Ünreal") == hashed(" ZOE\u0308  u\u0308nreal ") != hashed("Zoe Unreal")
    assert hashed("Zoë Ünreal") != hashed("Zoë Ünreal", "other")
    assert hashed(None) is None


@pytest.mark.parametrize(
    ("choices", "kind", "told"),
    [
        pytest.param({"documents.name": "keep"}, ValidationError, "no column 'documents.name'", id="column"),
        pytest.param({"people.*": "keep"}, ValidationError, "no column 'people.*'", id="table"),
        pytest.param(
            {"documents.age": "mask"}, ValidationError, "must be one of keep, drop, hash", id="choice"
        ),
        pytest.param({"documents.age": "hash"}, ConfigurationError, "pii_hash_secret", id="no key"),
    ],
)
def test_an_invalid_column_policy_is_rejected(
    choices: dict[str, str], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        ColumnPolicy(choices)


def test_parquet_has_the_types_and_row_groups_of_a_size() -> None:
    policy = ColumnPolicy({f"{table}.*": "keep" for table in TABLES})
    columns = policy.columns("documents")
    table = ParquetWriter(columns)
    row = policy.row("documents", rows()["documents"][0])
    for _ in range(10_500):
        table.add(row)
    with table.finish() as file:
        made = parquet.ParquetFile(file)
        types = {field.name: str(field.type) for field in made.schema_arrow}
        assert [made.metadata.row_group(number).num_rows for number in range(2)] == [10_000, 500]
        assert made.read_row_group(1).to_pylist()[0]["date_of_birth"] == date(1999, 12, 31)
    assert (types["age"], types["date_of_birth"], types["face_similarity"]) == (
        "int64",
        "date32[day]",
        "double",
    )
    assert (types["passed"], types["mrz"]) == ("bool", "string")


def test_an_empty_parquet_table_has_its_columns() -> None:
    with ParquetWriter(ColumnPolicy({}).columns("verifications")).finish() as file:
        made = parquet.read_table(file)
    assert made.num_rows == 0
    assert str(made.schema.field("created_at").type) == "timestamp[us, tz=UTC]"
