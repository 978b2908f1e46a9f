# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A killed task ends soon while it reads the finished rows, and the log reports the progress."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowTaskTimeout

from airflow_provider_faceki import storage
from airflow_provider_faceki.batch import manifest, rows, runner
from airflow_provider_faceki.batch.journal import SegmentLog
from airflow_provider_faceki.operators.batch import FacekiBatchFetchRecordsOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import context
from tests.batch.harness import BatchHarness, names

READINGS = {
    "counted": (manifest, "read_manifest", 1),
    "skipped": (manifest, "read_manifest", 2),
    "loaded": (SegmentLog, "lines", 3),
}


@pytest.mark.parametrize("reading", READINGS)
def test_a_kill_stops_a_batch_that_reads_its_journal(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    everybody = harness.everybody(*names(200))
    harness.verify(everybody)
    monkeypatch.setattr(rows, "ITEMS_PER_CHECKPOINT", 10)
    operator: Any = harness.batch(everybody)
    place, name, number = READINGS[reading]
    read = getattr(place, name)
    readings, seen = 0, 0

    def interrupted(*given: Any, **named: Any) -> Iterator[Any]:
        nonlocal readings, seen
        readings += 1
        mine = readings
        for thing in read(*given, **named):
            if mine == number or (reading == "loaded" and mine > 1):
                seen += 1
                operator.on_kill()
            yield thing

    monkeypatch.setattr(place, name, interrupted)
    with pytest.raises(AirflowException, match="the task was killed"):
        operator.execute(context())
    assert 0 < seen <= 10


class Endless(io.RawIOBase):
    """A file that repeats a text without an end, and sends a signal to its own process after some bytes."""

    def __init__(self, text: bytes, number: int, after: int) -> None:
        self.text, self.number, self.left, self.more = text, number, after, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.left > 0:
            self.left -= len(self.text)
        else:
            self.more += len(self.text)
            if self.more == len(self.text):
                os.kill(os.getpid(), self.number)
            assert self.more < 100 * MIB, "it reads on"
        buffer[: len(self.text)] = self.text
        return len(self.text)


ROW = b'{"record_identifier": "a"}\n'
MIB = 1024 * 1024


@pytest.mark.parametrize("kind", ["verify", "fetch"])
@pytest.mark.parametrize(
    ("text", "first", "ending", "reads_at_most"),
    [
        pytest.param(ROW * 200, b"", "ndjson", 4 * MIB, id="rows"),
        pytest.param(
            b"a,b,c\n" * 900, b"record_identifier,selfie,document_1_front\n", "csv", 4 * MIB, id="CSV rows"
        ),
        pytest.param(b"x" * 8192, b"", "ndjson", manifest.MAX_BYTES_WITHOUT_ROW + MIB, id="one line"),
    ],
)
@pytest.mark.parametrize("how", ["SIGTERM", "execution_timeout"])
def test_an_endless_manifest_does_not_hold_up_the_end_of_a_task(
    faceki: FacekiSandbox,
    harness: BatchHarness,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    text: bytes,
    first: bytes,
    ending: str,
    reads_at_most: int,
    how: str,
) -> None:
    # Airflow's handler of SIGTERM calls on_kill(), and its handler of SIGALRM raises an error. `handle` imitates both.
    number = signal.SIGTERM if how == "SIGTERM" else signal.SIGALRM
    file = Endless(text, number, after=MIB // 4)
    monkeypatch.setattr(storage, "open_binary", lambda *_, **__: io.BufferedReader(Chained(first, file)))
    operator: Any = harness.batch(f"s3://kyc/people.{ending}")
    if kind == "fetch":
        operator = FacekiBatchFetchRecordsOperator(
            task_id="fetch", manifest=f"s3://kyc/people.{ending}", output_path=harness.out.as_uri()
        )

    def handle(*_: object) -> None:
        if how == "execution_timeout":
            raise AirflowTaskTimeout("Timeout")
        operator.on_kill()

    before = signal.signal(number, handle)
    try:
        with pytest.raises((AirflowException, AirflowTaskTimeout)):
            operator.execute(context())
    finally:
        signal.signal(number, before)
    assert 0 < file.more <= (reads_at_most if how == "SIGTERM" else MIB)
    assert faceki.ledger == {}


class Chained(io.RawIOBase):
    """A file with a beginning, and another file after it."""

    def __init__(self, first: bytes, then: Endless) -> None:
        self.first, self.then = first, then

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.first:
            count = len(self.first)
            buffer[:count], self.first = self.first, b""
            return count
        return self.then.readinto(buffer)


def test_progress_is_logged_with_row_counts(
    faceki: FacekiSandbox,
    harness: BatchHarness,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(runner, "PROGRESS_SECONDS", 0.2)
    faceki.settings.latency = 0.05
    lines = [harness.line(name) for name in [*names(60), "declined-1", "code-5004-1"]]
    with caplog.at_level(logging.INFO, logger=runner.__name__):
        harness.verify(harness.manifest([*lines, {}, harness.line("x", selfie=None)]), concurrency=2)
    told = [record.getMessage() for record in caplog.records if record.name == runner.__name__]
    errors = [line for line in told if " is an error: " in line]
    assert errors == [
        "Row 63 is an error: NO_IDENTIFIER: the row has no identifier",
        "Row 64 is an error: INVALID_INPUT: selfie is missing",
    ]
    told = [line for line in told if line not in errors]
    assert len(told) >= 3
    # On a busy machine, the first lines can be written before any row is done. So "no decision yet" is allowed.
    between = (
        r"\d+ of 64 rows done, \d+\.\d a second; "
        r"(no decision yet|[\d A-Z,]*ACCEPTED[\d A-Z,]*); \d error\(s\); time left: (\d+ s|unknown)"
    )
    assert [line for line in told[1:-1] if not re.fullmatch(between, line)] == []
    assert [line for line in told[1:-1] if "ACCEPTED" in line] != []
    assert re.fullmatch(
        r"64 of 64 rows done, 64 of them by this try in \d+ s\n"
        r"  decision +rows\n  ACCEPTED +60\n  DECLINED +2\n"
        r"  error +rows\n  NO_IDENTIFIER +1\n  INVALID_INPUT +1",
        told[-1],
    )


def test_progress_of_a_further_try_counts_its_own(
    faceki: FacekiSandbox, harness: BatchHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.verify(harness.everybody(*names(3)))
    with caplog.at_level(logging.INFO, logger=runner.__name__):
        harness.verify(harness.everybody(*names(5)))
    assert "5 of 5 rows done, 2 of them by this try" in caplog.messages[-1]
