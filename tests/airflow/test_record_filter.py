# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Filters of a record request: which are refused at DAG parse time, and which forms of a link are accepted."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_faceki import task_mixin
from airflow_provider_faceki.operators.faceki import FacekiFetchRecordsOperator, FacekiGenerateKycLinkOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from tests.airflow.fakes import Recorder, context, execute

KINDS = [
    pytest.param(FacekiKycDecisionSensor, id="sensor"),
    pytest.param(FacekiFetchRecordsOperator, id="fetch"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("given", "found"),
    [
        pytest.param({}, "none", id="none"),
        pytest.param({"link": "a", "request_id": "b"}, "and", id="two"),
        pytest.param({"link": "{{ a }}", "record_identifier": "{{ b }}"}, "and", id="two templates"),
    ],
)
def test_one_filter_while_the_dag_is_parsed(kind: Any, given: dict[str, str], found: str) -> None:
    with pytest.raises(ValueError, match=f"give exactly one of .*; found .*{found}"):
        kind(task_id="task", **given)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_mapping_pass(kind: Any) -> None:
    with DAG("passing", schedule=None):
        link: Any = FacekiGenerateKycLinkOperator(task_id="link")
        kind(task_id="whole", link=link.output)
        kind(task_id="part", link=link.output["link"])
        kind.partial(task_id="mapped").expand(record_identifier=["a", "b"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda made: made, id="the task's output"),
        pytest.param(lambda made: made["link"], id="the id"),
        pytest.param(lambda made: made["url"], id="the page"),
        pytest.param(lambda made: f"{made['url']}/?from=mail", id="the page, as a mail names it"),
    ],
)
def test_shapes_of_a_link(faceki_sandbox: FacekiSandbox, kind: Any, shape: Any) -> None:
    made, _ = execute(FacekiGenerateKycLinkOperator(task_id="link"))
    faceki_sandbox.decide(made["link"], "ACCEPTED")
    task = kind(task_id="task", link="{{ a template }}")
    task.link = shape(made)
    found: Any = task.execute(context())
    assert (found[0] if isinstance(found, list) else found)["link"] == made["link"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("link", "masked"),
    [
        pytest.param("l-123", ["l-123"], id="id"),
        # A short text is not masked at all, because Airflow 2.11 would also mask it inside other words.
        pytest.param("l-12", [], id="too short"),
    ],
)
def test_a_given_link_is_masked(
    monkeypatch: pytest.MonkeyPatch, kind: Any, link: str, masked: list[str]
) -> None:
    found: list[str] = []
    monkeypatch.setattr(task_mixin, "mask_secret", found.append)
    assert kind(task_id="task", link=link)._fetch_call(link=link).link == link
    assert found == masked


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        pytest.param(
            "request_id", "https://a.example/kycverify/1", "request_id is a URL", id="a page as request_id"
        ),
        pytest.param(
            "record_identifier",
            "https://a.example/kycverify/1",
            "is a URL.*link=",
            id="a page as an identifier",
        ),
        pytest.param("request_id", {"link": "a", "url": "b"}, "as link=", id="an output as request_id"),
        pytest.param("link", ["a", "b"], r"\.expand\(link=", id="many links"),
        pytest.param("link", "{'link': 'a', 'url': 'b'}", r"link=task\.output", id="an output as text"),
        pytest.param("link", {"request_id": "a"}, "without 'link'", id="another mapping"),
        pytest.param("link", "", "link is empty", id="an empty link"),
        pytest.param("link", "None", "link is 'None'", id="a link that is none"),
        pytest.param("link", 20260001, "native", id="a number as a link"),
        pytest.param("request_id", 20260001, "native", id="a number as request_id"),
        pytest.param("record_identifier", 20260001, "native", id="a number as an identifier"),
        pytest.param("record_identifier", None, "record_identifier is empty", id="rendered to nothing"),
    ],
)
def test_a_value_of_another_parameter_is_rejected(
    faceki_sandbox: FacekiSandbox, kind: Any, name: str, value: object, told: str
) -> None:
    task = kind(task_id="task", **{name: "{{ a template }}"})
    setattr(task, name, value)
    with pytest.raises(AirflowFailException, match=f"ValidationError: (.|\n)*{told}"):
        task.execute(context())
    assert faceki_sandbox.counters.total == 0


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        pytest.param({"request_id": "customer-1"}, True, id="request_id"),
        pytest.param({"request_id": "0b5cde5e-3a52-4e8c-9f0f-6a0c1d2e3f40"}, False, id="a UUID"),
        pytest.param({"record_identifier": "customer-1"}, False, id="an id of one's own"),
    ],
)
def test_an_id_without_the_form_of_one_is_warned_of(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], warned: bool
) -> None:
    log = Recorder()
    monkeypatch.setattr(FacekiKycDecisionSensor, "log", log)
    FacekiKycDecisionSensor(task_id="wait", **given).poke(context())
    (name,) = given
    told = [line for line in log.lines if line.startswith(f"WARNING {name}= does not look like")]
    assert bool(told) is warned
    assert "customer-1" not in "".join(told)
