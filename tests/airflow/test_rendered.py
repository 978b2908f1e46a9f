# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""An identifier, a path or a Connection id that renders to nothing fails the task before any request is sent."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki.operators.batch import (
    FacekiBatchFetchRecordsOperator,
    FacekiBatchVerificationOperator,
)
from airflow_provider_faceki.operators.branch import FacekiDecisionBranchOperator
from airflow_provider_faceki.operators.faceki import (
    FacekiApiOperator,
    FacekiFetchRecordsOperator,
    FacekiGenerateKycLinkOperator,
)
from airflow_provider_faceki.operators.images import (
    FacekiAnalyzeFaceOperator,
    FacekiCheckImageOperator,
    FacekiFaceMatchOperator,
)
from airflow_provider_faceki.operators.reports import FacekiPdfReportOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from tests.airflow.fakes import context
from tests.airflow.test_labels import CLASSES

#: Template fields that are allowed to be empty, or whose check has its own tests.
OTHERS = {"workflow_id", "json", "documents", "identifiers", "allowed_image_conn_ids"}
FILTERS = {"link", "request_id", "record_identifier", "face_id"}
REQUIRED: dict[Any, dict[str, Any]] = {
    FacekiGenerateKycLinkOperator: {},
    FacekiApiOperator: {"path": "/"},
    FacekiKycVerificationOperator: {"selfie": "/a", "documents": ["/a"]},
    FacekiFaceMatchOperator: {"selfie": "/a"},
    FacekiAnalyzeFaceOperator: {"selfie": "/a"},
    FacekiCheckImageOperator: {"image": "/a"},
    FacekiPdfReportOperator: {"request_id": "a", "output_path": "/a"},
    FacekiBatchVerificationOperator: {"manifest": "/a.csv", "output_path": "/a"},
    FacekiBatchFetchRecordsOperator: {"manifest": "/a.csv", "output_path": "/a"},
    FacekiFetchRecordsOperator: {},
    FacekiKycDecisionSensor: {},
}


def test_the_table_lists_every_class() -> None:
    assert set(REQUIRED) == set(CLASSES) - {FacekiDecisionBranchOperator}


def cases() -> list[Any]:
    found = []
    for kind, required in REQUIRED.items():
        needs_filter = kind in (FacekiFetchRecordsOperator, FacekiKycDecisionSensor)
        for name in sorted(set(kind.template_fields) - OTHERS):
            given = dict(required)
            if needs_filter and name not in FILTERS:
                given["request_id"] = "a"
            found.append(
                pytest.param(kind, {**given, name: "{{ a template }}"}, name, id=f"{kind.__name__}-{name}")
            )
    return found


@pytest.mark.parametrize(("kind", "given", "name"), cases())
def test_what_renders_to_nothing_is_refused(
    faceki_sandbox: FacekiSandbox, kind: Any, given: dict[str, Any], name: str
) -> None:
    task = kind(task_id="task", **given)
    for nothing in ("", None):
        setattr(task, name, nothing)
        with pytest.raises(AirflowFailException, match=f"ValidationError: {name} is empty"):
            task.execute(context())
    assert faceki_sandbox.counters.total == 0
