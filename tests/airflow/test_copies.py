# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operators and sensors that have been executed can be copied and pickled, and the copies work."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_faceki.operators.faceki import (
    FacekiApiOperator,
    FacekiFetchRecordsOperator,
    FacekiGenerateKycLinkOperator,
)
from airflow_provider_faceki.operators.images import FacekiAnalyzeFaceOperator, FacekiFaceMatchOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from tests.airflow.fakes import StateStore, TaskInstance, context
from tests.billing.image_files import write

RECORDS = "/api/v3/kyc_verification"


def _verification(folder: Any) -> Any:
    return FacekiKycVerificationOperator(
        task_id="verify",
        record_identifier="accepted-1",
        selfie=write(folder, "s.jpg"),
        documents=[{"front": write(folder, "f.jpg"), "back": write(folder, "b.jpg")}],
    )


TASKS = [
    pytest.param(lambda _: FacekiGenerateKycLinkOperator(task_id="task"), id="link"),
    pytest.param(
        lambda _: FacekiFetchRecordsOperator(task_id="task", record_identifier="customer-1"), id="fetch"
    ),
    pytest.param(
        lambda _: FacekiApiOperator(task_id="task", path=RECORDS, query={"record_identifier": "customer-1"}),
        id="call",
    ),
    pytest.param(_verification, id="verification"),
    pytest.param(
        lambda folder: FacekiFaceMatchOperator(task_id="task", selfie=write(folder, "s.jpg")), id="face match"
    ),
    pytest.param(
        lambda folder: FacekiAnalyzeFaceOperator(task_id="task", selfie=write(folder, "s.jpg")), id="analysis"
    ),
    pytest.param(
        lambda _: FacekiKycDecisionSensor(task_id="task", record_identifier="customer-1"), id="sensor"
    ),
    pytest.param(
        lambda _: FacekiKycDecisionSensor(task_id="task", record_identifier="nobody", deferrable=True),
        id="sensor that has deferred",
    ),
]


def use(task: Any) -> object:
    """Execute a task; return its result, or "deferred" if it has deferred."""
    try:
        return task.execute(context(ti=TaskInstance(), task_state_store=StateStore()))
    except TaskDeferred:
        return "deferred"


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(copy.deepcopy, id="deep copy"),
        pytest.param(copy.copy, id="copy"),
        pytest.param(lambda task: pickle.loads(pickle.dumps(task)), id="pickle"),  # noqa: S301 - own pickle
    ],
)
@pytest.mark.parametrize("make", TASKS)
def test_used_tasks(faceki_sandbox: FacekiSandbox, tmp_path: Any, make: Any, copied: Any) -> None:
    faceki_sandbox.add_record("customer-1")
    task = make(tmp_path)
    first = use(task)
    again = use(copied(task))
    assert type(again) is type(first)
    # The original task still works after it was copied.
    assert type(use(task)) is type(first)


@pytest.mark.parametrize("make", TASKS)
def test_a_pickle_holds_no_secret(faceki_sandbox: FacekiSandbox, tmp_path: Any, make: Any) -> None:
    faceki_sandbox.add_record("customer-1")
    task = make(tmp_path)
    use(task)
    kept = pickle.dumps(task)
    assert faceki_sandbox.client_secret.encode() not in kept
    assert faceki_sandbox.client_id.encode() not in kept
