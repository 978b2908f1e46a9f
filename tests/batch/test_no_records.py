# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""No row is billed twice if the workflow stores no records."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.batch.dying import die
from tests.batch.harness import BatchHarness, begin, keep_no_records, names, once

pytestmark = pytest.mark.process


def test_a_kill_without_kept_records_bills_no_row_twice(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_no_records(faceki, monkeypatch)
    faceki.settings.latency = 0.02
    manifest = harness.everybody(*names(300))
    die(harness, manifest, lambda: len(faceki.ledger) >= 100, concurrency=4)
    done = harness.verify(manifest)
    assert Counter(faceki.ledger.values()) == {1: len(faceki.ledger)}
    # Rows that were possibly sent and have no result become error rows with an unknown outcome. So the batch is done.
    unknown = {line["record_identifier"] for line in harness.lines("errors")}
    assert done["errors"] == {"OUTCOME_UNKNOWN": len(unknown)}
    assert done["decisions"] == {"ACCEPTED": 300 - len(unknown)}
    assert set(harness.results()) | unknown == set(names(300))
    assert set(faceki.ledger) >= set(harness.results())
    assert harness.verify(manifest) == done


def test_a_lost_response_without_kept_records_is_an_error_row(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_no_records(faceki, monkeypatch)
    faceki.add_fault("process_then_reset", route="verify", count=3, skip=2)
    done = harness.verify(harness.everybody(*names(10)), lookup_timeout=0.1)
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 7}, {"OUTCOME_UNKNOWN": 3})
    assert faceki.ledger == once(names(10))
    problem = harness.lines("errors")[0]
    assert "its workflow stores no records, or stores them late" in problem["problem"]
    assert "portal" in problem["what_to_do"]


def test_missing_records_are_unknown_outcomes_despite_the_rules(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    faceki.add_fault("code", route="records", code=8013, count=None)
    faceki.add_fault("process_then_reset", route="verify", count=3, skip=2)
    done = harness.verify(harness.everybody(*names(10)), lookup_timeout=0.1)
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 7}, {"OUTCOME_UNKNOWN": 3})
    assert faceki.ledger == once(names(10))


def test_rules_are_fetched_for_reconciliation_without_check_rules(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_no_records(faceki, monkeypatch)
    begin(harness, "a")
    done = harness.verify(harness.everybody("a", "b"), check_rules=False)
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 1}, {"OUTCOME_UNKNOWN": 1})
    assert faceki.ledger == once("b")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "status", "status": 429, "retry_after": 0}, id="429"),
        pytest.param({"kind": "status", "status": 503, "retry_after": 0}, id="503"),
        pytest.param({"kind": "reset"}, id="no answer"),
    ],
)
def test_rules_that_cannot_be_fetched_leave_the_row_open(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    keep_no_records(faceki, monkeypatch)
    faceki.add_fault(route="rules", count=None, **fault)
    begin(harness, "a")
    with pytest.raises(api.OutcomeUnknownError, match="1 of 1 rows"):
        harness.verify(harness.everybody("a"), check_rules=False)
    assert (harness.lines("errors"), faceki.ledger) == ([], {})


def test_an_account_without_rules_can_send_a_row_again(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    faceki.add_fault("status", route="rules", status=404, count=None)
    begin(harness, "a")
    assert harness.verify(harness.everybody("a"))["decisions"] == {"ACCEPTED": 1}
    assert faceki.ledger == once("a")


@pytest.mark.parametrize(
    ("resubmit", "billed", "errors"), [("if_absent", "ab", {}), ("never", "b", {"OUTCOME_UNKNOWN": 1})]
)
def test_resubmit(
    faceki: FacekiSandbox, harness: BatchHarness, resubmit: str, billed: str, errors: dict[str, Any]
) -> None:
    begin(harness, "a")
    done = harness.verify(harness.everybody("a", "b"), resubmit=resubmit)
    assert (done["errors"], faceki.ledger) == (errors, once(billed))


def test_resubmit_never_still_sends_rows_rejected_for_missing_credit(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    manifest = harness.everybody(*names(10))
    faceki.add_fault("code", route="verify", code=5003, count=None)
    with pytest.raises(AirflowFailException, match="QuotaError"):
        harness.verify(manifest, resubmit="never")
    faceki.clear_faults()
    assert harness.verify(manifest, resubmit="never")["decisions"] == {"ACCEPTED": 10}
