# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A mistake in the whole batch is reported as one error, and all rows can be verified after it is corrected."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki.batch.error_guard import MIN_ALIKE
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.batch.harness import BatchHarness, keep_no_records, names, once


def test_no_workflow_anywhere(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.environ["AIRFLOW_CONN_FACEKI_DEFAULT"]
    connection = json.loads(whole)
    workflow = connection["extra"].pop("workflow_id")
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
    manifest = harness.manifest(
        [harness.line("own", workflow_id=workflow), *(harness.line(name) for name in names(50))]
    )
    with pytest.raises(AirflowFailException, match=r"ConfigurationError: row \d+ has no workflow"):
        harness.verify(manifest)
    assert harness.lines("errors") == []
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", whole)
    assert harness.verify(manifest)["decisions"] == {"ACCEPTED": 51}
    assert faceki.ledger == once([*names(50), "own"])


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "code", "code": 5001}, id="no rules"),
        pytest.param({"kind": "status", "status": 400}, id="400"),
        pytest.param({"kind": "status", "status": 404}, id="no such place"),
    ],
)
def test_a_refusal_of_all_rows_leaves_them_open(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    # No row can be looked up here, so the journal must record that the refused rows were not sent.
    keep_no_records(faceki, monkeypatch)
    faceki.add_fault(route="verify", count=None, **fault)
    manifest = harness.everybody(*names(100))
    with pytest.raises(
        AirflowFailException, match=r"no row has succeeded and \d+ rows were refused for the same reason"
    ) as caught:
        harness.verify(manifest)
    assert "100 of 100 rows are left" in str(caught.value)
    assert harness.lines("errors") == []
    faceki.clear_faults()
    assert harness.verify(manifest)["decisions"] == {"ACCEPTED": 100}
    assert faceki.ledger == once(names(100))


@pytest.mark.parametrize(
    "forgotten",
    [
        pytest.param({"allowed_image_prefixes": None}, id="no prefixes"),
        pytest.param({"allowed_image_prefixes": ["s3://kyc/images/"]}, id="other prefixes"),
    ],
)
def test_a_setting_that_allows_no_image_leaves_all_rows_open(
    faceki: FacekiSandbox, harness: BatchHarness, forgotten: dict[str, object]
) -> None:
    manifest = harness.everybody(*names(100))
    with pytest.raises(
        AirflowFailException, match=r"no row has succeeded and \d+ rows were refused .*allowed_image_prefixes"
    ) as caught:
        harness.verify(manifest, **forgotten)
    assert "100 of 100 rows are left" in str(caught.value)
    assert harness.lines("errors") == []
    assert harness.verify(manifest)["decisions"] == {"ACCEPTED": 100}
    assert faceki.ledger == once(names(100))


def test_after_a_first_result_images_that_are_not_allowed_are_row_errors(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    lines = [harness.line(name, selfie="/etc/passwd") for name in names(MIN_ALIKE + 10)]
    done = harness.verify(harness.manifest([harness.line("accepted-own"), *lines]), concurrency=1)
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 1}, {"INVALID_INPUT": MIN_ALIKE + 10})


@pytest.mark.parametrize("place", ["first", "last"])
def test_one_success_turns_other_refusals_into_row_errors(
    faceki: FacekiSandbox, harness: BatchHarness, place: str
) -> None:
    refused = [f"code-5006-{number}" for number in range(MIN_ALIKE - 1)]
    everybody = ["accepted-1", *refused] if place == "first" else [*refused, "accepted-1"]
    done = harness.verify(harness.everybody(*everybody))
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 1}, {"5006": len(refused)})


def test_a_few_refused_rows_are_errors_and_fail_the_task(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    manifest = harness.everybody("code-5006-1", "code-5006-2")
    for _ in range(2):
        with pytest.raises(AirflowFailException, match=r"no row succeeded \(2 5006\)"):
            harness.verify(manifest)
        assert harness.errors() == {1: "5006", 2: "5006"}


def test_an_unknown_workflow_named_by_rows_is_a_row_error(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    lines = [harness.line(name, workflow_id="nobody's") for name in names(MIN_ALIKE + 10)]
    done = harness.verify(harness.manifest([*lines, harness.line("accepted-own")]))
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 1}, {"5001": MIN_ALIKE + 10})


def test_after_a_first_result_refusals_are_row_errors_at_once(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    harness.verify(harness.everybody("accepted-1"))
    faceki.add_fault("status", route="verify", status=400, count=None)
    done = harness.verify(harness.everybody("accepted-1", *(f"r-{number}" for number in range(40))))
    assert done["errors"] == {"400": 40}
