# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Every row is in exactly one shard, always in the same shard, and two shards never bill the same person."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.manifest import read_manifest, split
from airflow_provider_faceki.operators.batch import COLUMNS
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.running import EXAMPLES, bundles, run
from tests.batch.harness import BatchHarness, Line, names, once

SAME = {name: name for name in COLUMNS}


def cut(harness: BatchHarness, lines: list[Line | str | bytes], shards: int) -> list[dict[int, str]]:
    """Return for each shard the identifier or the problem of each row, by row number."""
    uris = split(harness.manifest(lines), f"{harness.folder.as_uri()}/shards", shards, SAME)
    return [
        {
            row.number: row.problem or row.values.get("record_identifier", "")
            for row in read_manifest(uri, SAME)
        }
        for uri in uris
    ]


def test_each_row_is_in_one_shard_under_its_number(harness: BatchHarness) -> None:
    lines: list[Line | str | bytes] = [harness.line(f"p-{number}") for number in range(200)]
    lines[17], lines[50] = "nonsense", {}
    found = cut(harness, lines, 4)
    together = {number: told for shard in found for number, told in shard.items()}
    assert sum(map(len, found)) == 200
    assert together[18] == "the line is not JSON"
    assert together[51] == ""
    assert together[1] == "p-0"
    assert min(map(len, found)) > 20


def test_a_shard_reads_back_as_the_rows_of_its_manifest(harness: BatchHarness) -> None:
    lines: list[Line | str | bytes] = [harness.line("a"), "nonsense", "other nonsense", harness.line(1.5), {}]
    manifest = harness.manifest(lines)
    (shard,) = split(manifest, f"{harness.folder.as_uri()}/shards", 1, SAME)
    rows = list(read_manifest(manifest, SAME))
    assert list(read_manifest(shard, SAME)) == rows
    assert len({row.content_hash for row in rows[1:4]}) == 3


def test_rows_with_the_same_identifier_are_in_one_shard(harness: BatchHarness) -> None:
    lines: list[Line | str | bytes] = [harness.line(f" p-{number % 40}") for number in range(120)]
    found = cut(harness, lines, 8)
    for number in range(40):
        assert sum(f"p-{number}" in shard.values() for shard in found) == 1


def test_a_growing_manifest_keeps_each_row_in_its_shard(harness: BatchHarness) -> None:
    some: list[Line | str | bytes] = [harness.line(f"p-{number}") for number in range(50)]
    before = [set(shard.values()) for shard in cut(harness, some, 5)]
    after = [set(shard.values()) for shard in cut(harness, [harness.line("new"), *some], 5)]
    assert all(old <= new for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("missing", ["record_identifier", "selfie", "document_1_front"])
def test_a_manifest_without_a_column_is_refused_before_it_is_cut(harness: BatchHarness, missing: str) -> None:
    place = harness.folder / "people.txt"
    place.write_text(",".join(name for name in COLUMNS if name != missing) + "\n")
    folder = harness.folder / "shards"
    with pytest.raises(ValidationError, match=f"there is no column '{missing}'"):
        split(place.as_uri(), folder.as_uri(), 2, SAME, manifest_format="csv")
    assert not folder.exists()


def test_another_number_of_shards_bills_no_row_again(
    faceki: FacekiSandbox,
    harness: BatchHarness,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    everybody = names(12)
    manifest = harness.everybody(*everybody)
    found = Counter[int]()
    for shards in (2, 3):
        for number, uri in enumerate(split(manifest, f"{harness.folder.as_uri()}/shards", shards, SAME)):
            folder = f"{harness.folder.as_uri()}/{number}-of-{shards}"
            found[shards] += harness.verify(uri, output_path=folder, batch_id=folder)["found"]
        assert faceki.ledger == once(everybody)
    assert found == {2: 0, 3: 12}
    # Airflow 2.11 and 3 send the log of a task to different places.
    printed = "".join(capsys.readouterr()) + caplog.text
    assert "4 rows of the batch were not sent, because FACEKI already had a record of them" in printed


@pytest.mark.parametrize("shards", [0, 257])
def test_an_invalid_number_of_shards_is_rejected(harness: BatchHarness, shards: int) -> None:
    with pytest.raises(ValidationError, match="shards must be between 1 and 256"):
        cut(harness, [], shards)


def test_repeated_runs_of_the_example_bill_each_row_once(
    airflow_db: Path, faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bundles(EXAMPLES).items():
        monkeypatch.setenv(name, value)
    names = [f"accepted-{number}" for number in range(12)] + ["declined-1"]
    more = [f"accepted-more-{number}" for number in range(10)]
    # One of the people was verified before, outside this batch.
    faceki.add_record("accepted-more-3")
    for grown in ([], [], more):
        manifest = harness.manifest([harness.line("accepted-3"), {}, *map(harness.line, [*names, *grown])])
        done = run(
            airflow_db,
            EXAMPLES,
            "example_faceki_batch",
            manifest=manifest,
            output=harness.out.as_uri(),
            shards=2,
        )
        assert done.state == "success"
        assert done.xcom("add_up") == {
            "decisions": {"ACCEPTED": 12 + len(grown), "DECLINED": 1},
            "errors": {"DUPLICATE_IDENTIFIER": 1, "NO_IDENTIFIER": 1},
            "found": 1 if grown else 0,
        }
        assert faceki.ledger == once({*names, *grown} - {"accepted-more-3"})
    lease = json.loads(harness.parts("002-of-002/_journal/tries")[0].read_text())
    assert lease["batch"] == "example_faceki_batch 002-of-002"
