# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Log lines of a wait: short, rate-limited, and a warning if no record appears."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_faceki.api import VerificationRecord
from airflow_provider_faceki.api.values import Json
from airflow_provider_faceki.triggers import poll_log
from airflow_provider_faceki.triggers.poll_log import (
    LOG_INTERVAL_SECONDS,
    NO_RECORD_WARNING_SECONDS,
    PollLog,
    wait_subject,
)
from tests.airflow.fakes import Recorder


class Wait:
    """A wait whose clock the test moves."""

    def __init__(self, patch: pytest.MonkeyPatch, **key: str) -> None:
        self.now, self.log = 1_000_000.0, Recorder()
        patch.setattr(poll_log, "time", SimpleNamespace(time=lambda: self.now))
        self.polls = PollLog(self.log, *wait_subject(**key))

    def go(self, *after: float, records: tuple[VerificationRecord, ...] = ()) -> list[str]:
        for seconds in after:
            self.now += seconds
            self.polls.polled(records, seconds)
        return self.log.lines


def test_one_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Wait(monkeypatch, record_identifier="customer-1").go(*[1.0] * 300)
    assert 300 / LOG_INTERVAL_SECONDS <= len(lines) <= 300 / LOG_INTERVAL_SECONDS + 1
    assert lines[0] == (
        "INFO Poll 1: FACEKI has no record for record identifier customer-1 yet; next poll within 1 second"
    )


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        pytest.param({"link": "made-up-link"}, "neither a request id nor a record identifier", id="link"),
        pytest.param({"request_id": "r1"}, "pass a link as link=", id="request id"),
        pytest.param({"record_identifier": "a1"}, "as request_id=", id="record identifier"),
    ],
)
def test_a_wait_without_any_record_warns_once(
    monkeypatch: pytest.MonkeyPatch, key: dict[str, str], hint: str
) -> None:
    wait = Wait(monkeypatch, **key)
    assert not any(line.startswith("WARNING") for line in wait.go(NO_RECORD_WARNING_SECONDS - 1))
    warnings = [line for line in wait.go(2.0, 3600.0, 3600.0) if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert "still has no record for" in warnings[0]
    assert "15 minutes" in warnings[0]
    assert hint in warnings[0]
    assert "made-up-link" not in "".join(wait.log.lines)


def test_a_wait_for_a_review_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    record = VerificationRecord({"decision": "REVIEW", "requestId": "r1"})
    lines = Wait(monkeypatch, request_id="r1").go(*[3600.0] * 5, records=(record,))
    assert len(lines) == 5
    assert all("with decision REVIEW" in line and line.startswith("INFO") for line in lines)


def test_a_record_without_a_decision_is_described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    document: dict[str, Json] = {"requestId": "r1", "outcomeText": "Maria Invented", "Maria Invented": 1}
    wait = Wait(monkeypatch, request_id="r1")
    wait.go(1.0)
    lines = wait.go(1.0, *[LOG_INTERVAL_SECONDS] * 3, records=(VerificationRecord(document),))[1:]
    assert lines[0] == (
        "INFO FACEKI has a record for request r1 without a decision. It contains an object with the keys outcomeText, "
        "requestId and 1 more"
    )
    assert [line.partition(";")[0] for line in lines[1:]] == [
        f"INFO Poll {number}: FACEKI has a record for request r1, and no decision yet" for number in (3, 4, 5)
    ]


@pytest.mark.parametrize("odd", ["Anna Example", "a\nINFO forged", "a" * 65, "anna@mail.example", ""])
def test_an_identifier_that_may_be_personal_data_is_not_logged(odd: str) -> None:
    subject: Any = wait_subject(record_identifier=odd)
    assert subject == ("record_identifier", "record identifier (not shown here)")
