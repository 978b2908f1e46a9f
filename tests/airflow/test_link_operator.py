# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operator that creates links: what it returns, renders and refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.operators.faceki import FacekiGenerateKycLinkOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import WORKFLOW_PASSPORT
from tests.airflow.conftest import Connect
from tests.airflow.fakes import execute


def test_xcom_is_what_the_documentation_says(faceki_sandbox: FacekiSandbox) -> None:
    made, pushed = execute(
        FacekiGenerateKycLinkOperator(
            task_id="make",
            record_identifier="customer-1",
            expires_in_minutes=30,
            redirect_url="https://a.example/",
        )
    )
    assert list(made) == ["link", "url", "record_identifier", "expires_at"]
    assert made["url"] == f"{faceki_sandbox.url}/kycverify/{made['link']}"
    assert made["record_identifier"] == "customer-1"
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=29) < left <= timedelta(minutes=30)
    assert pushed == {}


def test_without_an_expiry_expires_at_is_none(faceki_sandbox: FacekiSandbox) -> None:
    made, _ = execute(FacekiGenerateKycLinkOperator(task_id="make"))
    assert (made["expires_at"], made["record_identifier"]) == (None, None)


def test_every_id_is_a_template(faceki_sandbox: FacekiSandbox, connect: Connect) -> None:
    connect(faceki_sandbox, "faceki_fr")
    operator = FacekiGenerateKycLinkOperator(
        task_id="make",
        faceki_conn_id="faceki_{{ params.country }}",
        workflow_id="{{ params.workflow }}",
        record_identifier="{{ params.country }}-{{ ti.run_id }}",
        redirect_url="https://a.example/{{ params.country }}",
    )
    made, _ = execute(operator, {"params": {"country": "fr", "workflow": WORKFLOW_PASSPORT}})
    assert made["record_identifier"] == "fr-run"
    assert (operator.faceki_conn_id, operator.redirect_url) == ("faceki_fr", "https://a.example/fr")
    assert operator.hook.faceki_conn_id == "faceki_fr"
    asked = operator.call(api.GetWorkflowRules(link=made["link"]))
    assert asked.documents == ("Passport",)


@pytest.mark.parametrize("given", [pytest.param(None, id="none"), pytest.param("", id="an empty template")])
def test_default_workflow_of_the_connection(
    faceki_sandbox: FacekiSandbox, connect: Connect, given: str | None
) -> None:
    connect(faceki_sandbox, workflow_id=WORKFLOW_PASSPORT)
    operator = FacekiGenerateKycLinkOperator(task_id="make", workflow_id=given)
    made, _ = execute(operator)
    assert operator.call(api.GetWorkflowRules(link=made["link"])).documents == ("Passport",)


def test_no_workflow_anywhere(faceki_sandbox: FacekiSandbox, connect: Connect) -> None:
    connect(faceki_sandbox, workflow_id=None)
    with pytest.raises(AirflowFailException, match=r"no workflow: give workflow_id.*'faceki_default'"):
        execute(FacekiGenerateKycLinkOperator(task_id="make"))
    assert faceki_sandbox.counters.total == 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        pytest.param({"expires_in_minutes": -1}, "expires_in_minutes", id="negative minutes"),
        pytest.param({"expires_in_minutes": True}, "expires_in_minutes", id="a boolean"),
        pytest.param({"redirect_url": "javascript:alert(1)"}, "redirect_url", id="not a web address"),
        pytest.param({"record_identifier": " "}, "record_identifier", id="a blank identifier"),
        pytest.param({"record_identifier": "a\nb"}, "record_identifier", id="a control character"),
    ],
)
def test_invalid_input_is_rejected_before_anything_is_sent(
    faceki_sandbox: FacekiSandbox, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(AirflowFailException, match=told) as raised:
        execute(FacekiGenerateKycLinkOperator(task_id="make", **wrong))
    assert isinstance(raised.value.__cause__, api.ValidationError)
    assert faceki_sandbox.counters.total == 0


def test_a_link_request_is_not_repeated_after_a_lost_response(
    faceki_sandbox: FacekiSandbox, connect: Connect
) -> None:
    connect(faceki_sandbox, max_attempts=4)
    faceki_sandbox.add_fault("process_then_reset", route="link")
    with pytest.raises(api.ResponseLostError, match="'faceki_default'") as raised:
        execute(FacekiGenerateKycLinkOperator(task_id="make"))
    assert raised.value.is_ambiguous
    assert faceki_sandbox.counters.requests["link"] == 1
