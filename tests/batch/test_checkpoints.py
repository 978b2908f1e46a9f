# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A killed task ends soon while it reads the finished rows, and the log reports the progress."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_faceki.batch import manifest, runner, store
from airflow_provider_faceki.batch.journal import SegmentLog
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import context
from tests.batch.people import People, names

READINGS = {
    "counted": (manifest, "read_manifest", 1),
    "skipped": (manifest, "read_manifest", 2),
    "loaded": (SegmentLog, "lines", 3),
}


@pytest.mark.parametrize("reading", READINGS)
def test_a_kill_is_heard_while_what_is_done_is_read(
    faceki: FacekiSandbox, people: People, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    everybody = people.everybody(*names(200))
    people.verify(everybody)
    monkeypatch.setattr(store, "ITEMS_PER_CHECKPOINT", 10)
    operator: Any = people.batch(everybody)
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


def test_progress_tells_how_far_it_is(
    faceki: FacekiSandbox, people: People, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner, "PROGRESS_SECONDS", 0.2)
    faceki.settings.latency = 0.05
    lines = [people.line(name) for name in [*names(60), "declined-1", "code-5004-1"]]
    with caplog.at_level(logging.INFO, logger=runner.__name__):
        people.verify(people.manifest([*lines, {}, people.line("x", selfie=None)]), concurrency=2)
    told = [record.getMessage() for record in caplog.records if record.name == runner.__name__]
    errors = [line for line in told if " is an error: " in line]
    assert errors == [
        "Row 63 is an error: NO_IDENTIFIER: the row has no identifier",
        "Row 64 is an error: INVALID_INPUT: selfie is missing",
    ]
    told = [line for line in told if line not in errors]
    assert len(told) >= 3
    # On a busy machine the first lines can be written before any row is done.
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
    faceki: FacekiSandbox, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    people.verify(people.everybody(*names(3)))
    with caplog.at_level(logging.INFO, logger=runner.__name__):
        people.verify(people.everybody(*names(5)))
    assert "5 of 5 rows done, 2 of them by this try" in caplog.messages[-1]
