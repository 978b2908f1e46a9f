# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""If a storage fails, no table is written twice, incompletely, or from old records."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_faceki import storage_interface
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.batch.harness import BatchHarness, names
from tests.batch.stores import FlakyStore, StoreDown, attached, intermittent_failures

OUT = "flaky://bucket/out"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_interface, "RETRY_PAUSES_SECONDS", (0.0,) * 4)


def known(faceki: FacekiSandbox, count: int) -> list[str]:
    for name in names(count):
        faceki.add_record(name)
    return names(count)


def told(store: FlakyStore) -> list[str]:
    return sorted(json.loads(line)["record_identifier"] for line in store.texts("verifications"))


@pytest.mark.parametrize("seed", range(6))
def test_intermittent_storage_failures_are_tolerated(
    faceki: FacekiSandbox, harness: BatchHarness, seed: int
) -> None:
    store = attached()
    store.fails = intermittent_failures(
        0.1, seed, ("write", "write done", "list", "open", "delete", "delete done")
    )
    everybody = known(faceki, 60)
    assert harness.fetch(identifiers=everybody, output_path=OUT)["decisions"] == {"ACCEPTED": 60}
    assert told(store) == sorted(everybody)
    assert store.texts("_journal") == []


def test_a_journal_that_could_not_be_deleted_is_not_reused(
    faceki: FacekiSandbox, harness: BatchHarness, caplog: pytest.LogCaptureFixture
) -> None:
    store = attached()

    def fails(operation: str, path: str) -> None:
        if operation == "delete":
            raise StoreDown("no")

    store.fails = fails
    everybody = known(faceki, 5)
    assert harness.fetch(identifiers=everybody, output_path=OUT)["decisions"] == {"ACCEPTED": 5}
    assert "could not be deleted" in caplog.text
    assert store.texts("_journal") != []
    store.fails = lambda operation, path: None
    # Each person now has a second record. With the old journal, the next run would skip all persons. It finds both
    # records, so it has not used the old journal.
    for name in everybody:
        faceki.add_record(name, "DECLINED")
    assert harness.fetch(identifiers=everybody, output_path=OUT)["decisions"] == {
        "ACCEPTED": 5,
        "DECLINED": 5,
    }
    assert store.texts("_journal") == []


def test_a_store_that_is_down_for_tables_loses_nothing(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    store = attached()

    def fails(operation: str, path: str) -> None:
        if operation == "open" and "/documents/" in path:
            raise StoreDown("no")

    store.fails = fails
    everybody = known(faceki, 20)
    with pytest.raises(OSError, match="StoreDown"):
        harness.fetch(identifiers=everybody, output_path=OUT)
    assert told(store) == []
    store.fails = lambda operation, path: None
    asked = faceki.counters.requests["records"]
    harness.fetch(identifiers=everybody, output_path=OUT)
    assert (told(store), faceki.counters.requests["records"]) == (sorted(everybody), asked)


def test_a_rerun_in_another_form_leaves_nothing_of_the_first(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    everybody = known(faceki, 2)
    forms: list[dict[str, Any]] = [
        {},
        {"output_format": "parquet"},
        {"partition_by_date": True},
        {"output_format": "parquet", "partition_by_date": True},
        {},
    ]
    others = harness.out / "verifications" / "part-of-somebody-else.parquet"
    others.parent.mkdir(parents=True)
    others.write_text("")
    for form in forms:
        done = harness.fetch(identifiers=[*everybody, ""], **form)
        uris = {uri.removeprefix("file://") for uri in [*done["tables"].values(), done["errors_path"]]}
        assert {str(path) for path in harness.parts(".")} == uris | {str(others)}
