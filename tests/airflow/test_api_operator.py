# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operator for any other API call: what it sends, returns, writes and refuses."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki import api, storage
from airflow_provider_faceki.operators.faceki import DEFAULT_MAX_XCOM_BYTES, FacekiApiOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from tests.airflow.conftest import Connect
from tests.airflow.fakes import StateStore, TaskInstance, execute
from tests.billing.image_files import image_bytes

RECORDS = "/api/v3/kyc_verification"
LINK = "/kycverify/api/kycverify/kyc-verify-link"


def test_result_is_the_unwrapped_document(faceki_sandbox: FacekiSandbox) -> None:
    record = faceki_sandbox.add_record("customer-1")
    operator = FacekiApiOperator(
        task_id="call",
        path="{{ params.path }}",
        query={"record_identifier": "{{ params.who }}", "link": None},
    )
    found, pushed = execute(operator, {"params": {"path": RECORDS, "who": "customer-1"}})
    assert found == [record]
    assert pushed == {}


def test_post(faceki_sandbox: FacekiSandbox) -> None:
    body = {"workflowId": DEFAULT_WORKFLOW, "applicationId": "{{ params.who }}"}
    operator = FacekiApiOperator(task_id="call", method="POST", path=LINK, json=body)
    link, _ = execute(operator, {"params": {"who": "customer-1"}})
    faceki_sandbox.decide(link, "ACCEPTED")
    found, _ = execute(FacekiApiOperator(task_id="call", path=RECORDS, query={"link": link}))
    assert found[0]["record_identifier"] == "customer-1"


V2_UPLOAD = "/kycverify/api/kycverify/kyc-verification"


@pytest.fixture
def v2_files(tmp_path: Path) -> dict[str, str]:
    """URIs of the three images that the V2 upload needs, by part name."""
    made = {}
    for part in ("selfie_image", "doc_front_image", "doc_back_image"):
        path = tmp_path / f"{part}.jpg"
        path.write_bytes(image_bytes())
        made[part] = path.as_uri()
    return made


def test_an_upload_of_files(faceki_sandbox: FacekiSandbox, v2_files: dict[str, str]) -> None:
    operator = FacekiApiOperator(task_id="call", method="POST", path=V2_UPLOAD, files=v2_files)
    answer, _ = execute(operator)
    assert answer["verification"]["passed"] is True
    assert sum(faceki_sandbox.ledger.values()) == 1


def test_the_example_of_the_documentation(
    faceki_sandbox: FacekiSandbox, v2_files: dict[str, str], tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page.partition("### Send files")[2], re.DOTALL)
    answer = tmp_path / "answer.json"
    changes = {
        "s3://kyc/1001/selfie.jpg": v2_files["selfie_image"],
        "s3://kyc/1001/front.jpg": v2_files["doc_front_image"],
        "s3://kyc/1001/back.jpg": v2_files["doc_back_image"],
        "s3://kyc/1001/answer.json": str(answer),
        '"aws_default"': "None",
        '"LINK_ID"}):': '"LINK_ID"}) as dag:',
    }
    for before, after in changes.items():
        assert before in example
        example = example.replace(before, after)
    names: dict[str, Any] = {}
    exec(compile(example, "<page>", "exec"), names)  # noqa: S102 - the page is part of this repository
    tasks = names["dag"].task_dict
    execute(tasks["verify"])
    assert json.loads(answer.read_text())["verification"]["passed"] is True
    found, _ = execute(tasks["verify_by_link"], {"params": {"link": faceki_sandbox.create_link("case-1002")}})
    assert found["verification"]["passed"] is True
    assert faceki_sandbox.ledger == {"case-1001": 1, "case-1002": 1}


def test_a_file_that_is_missing_is_noticed_before_anything_is_sent(
    faceki_sandbox: FacekiSandbox, v2_files: dict[str, str]
) -> None:
    files = {**v2_files, "selfie_image": f"{v2_files['selfie_image']}-missing"}
    with pytest.raises(AirflowFailException, match="selfie_image"):
        execute(FacekiApiOperator(task_id="call", method="POST", path=V2_UPLOAD, files=files))
    assert faceki_sandbox.counters.tokens_issued == 0
    assert faceki_sandbox.ledger == {}


def test_an_upload_whose_answer_is_lost_is_not_repeated(
    faceki_sandbox: FacekiSandbox, connect: Connect, v2_files: dict[str, str]
) -> None:
    connect(faceki_sandbox, max_attempts=3)
    faceki_sandbox.add_fault("process_then_reset", route="v2_verify")
    with pytest.raises(AirflowFailException):
        execute(FacekiApiOperator(task_id="call", method="POST", path=V2_UPLOAD, files=v2_files))
    assert sum(faceki_sandbox.ledger.values()) == 1


@pytest.mark.parametrize(
    ("room", "fits"),
    [
        pytest.param(0, True, id="just fits"),
        pytest.param(-1, False, id="one byte too many"),
    ],
)
def test_size_limit(faceki_sandbox: FacekiSandbox, room: int, fits: bool) -> None:
    record = faceki_sandbox.add_record("customer-1", fields={"note": "é" * 1000})
    size = len(json.dumps([record]))
    operator = FacekiApiOperator(
        task_id="call", path=RECORDS, query={"record_identifier": "customer-1"}, max_xcom_bytes=size + room
    )
    if fits:
        assert execute(operator)[0] == [record]
        return
    told = f"has {size} bytes, more than max_xcom_bytes={size - 1} allows in XCom; set output_path"
    with pytest.raises(AirflowFailException, match=told):
        execute(operator)


def test_size_limit_by_default(faceki_sandbox: FacekiSandbox) -> None:
    operator = FacekiApiOperator(task_id="call", path=RECORDS, query={"record_identifier": "customer-1"})
    assert operator.max_xcom_bytes == DEFAULT_MAX_XCOM_BYTES == 48 * 1024
    faceki_sandbox.add_record("customer-1", fields={"note": "x" * DEFAULT_MAX_XCOM_BYTES})
    with pytest.raises(AirflowFailException, match="output_path"):
        execute(operator)


def test_output_path(faceki_sandbox: FacekiSandbox, tmp_path: Path) -> None:
    record = faceki_sandbox.add_record("customer-1")
    out = tmp_path / "answer.json"
    operator = FacekiApiOperator(
        task_id="call",
        path=RECORDS,
        query={"record_identifier": "customer-1"},
        output_path=str(tmp_path / "{{ params.name }}"),
        max_xcom_bytes=1,
    )
    found, pushed = execute(operator, {"params": {"name": "answer.json"}})
    assert (found, pushed) == (str(out), {})
    assert json.loads(out.read_text()) == [record]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        pytest.param({"method": "TRACE"}, "method must be one of", id="method"),
        pytest.param({"path": "https://elsewhere.example/"}, "path must begin with /", id="a whole URL"),
        pytest.param({"path": "//elsewhere.example/"}, "path must stay below", id="another host"),
        pytest.param({"path": "/a/../b"}, "path must stay below", id="upwards"),
        pytest.param({"json": {}, "data": {}}, "json or data", id="two bodies"),
        pytest.param({"query": {"a": [1]}}, r"query|params", id="a list in the query"),
        pytest.param({"output_path": "a.json"}, "absolute path", id="a relative output path"),
        pytest.param({"output_path": "x://b/a.json"}, "no storage for", id="an unknown storage"),
    ],
)
def test_invalid_input_is_rejected_before_anything_is_sent(
    faceki_sandbox: FacekiSandbox, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(AirflowFailException, match=told) as raised:
        execute(FacekiApiOperator(**{"task_id": "call", "path": "/", **wrong}))
    assert isinstance(raised.value.__cause__, api.ValidationError)
    assert faceki_sandbox.counters.total == 0


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "status", "status": 429}, id="too many requests"),
        pytest.param({"kind": "status", "status": 503, "route": "token"}, id="no token"),
    ],
)
def test_a_call_that_was_not_sent_is_retried_by_airflow(
    faceki_sandbox: FacekiSandbox, connect: Connect, fault: dict[str, Any]
) -> None:
    connect(faceki_sandbox, max_attempts=1)
    faceki_sandbox.add_fault(**{"route": "link", **fault})
    with pytest.raises((api.RateLimitError, api.ServiceError)):
        execute(FacekiApiOperator(task_id="call", method="POST", path=LINK, json={}))


@pytest.mark.parametrize(
    ("idempotent", "error"), [(None, AirflowFailException), (True, OSError)], ids=["made once", "idempotent"]
)
def test_an_answer_that_cannot_be_written(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    idempotent: bool | None,
    error: type[Exception],
) -> None:
    monkeypatch.setattr(storage, "write_json", _full)
    operator = FacekiApiOperator(
        task_id="call",
        method="POST",
        path=LINK,
        json={"workflowId": DEFAULT_WORKFLOW},
        idempotent=idempotent,
        output_path=str(tmp_path / "a.json"),
    )
    with pytest.raises(error, match="output_path|No space left"):
        execute(operator)


def _full(*_: object) -> str:
    raise OSError(errno.ENOSPC, "No space left on device")


class _Killed(BaseException):
    """Exception that simulates a killed process. No ``except Exception`` of the task catches it."""


def _die(*_: object) -> str:
    raise _Killed


def _try(store: StateStore, number: int, max_tries: int = 2, **more: Any) -> Any:
    """Run a try of a task that creates a link, and return the result of the task.

    Airflow raises ``max_tries`` when a task is cleared, so a higher ``max_tries`` simulates a cleared task.
    """
    arguments = {"method": "POST", "path": LINK, "json": {"workflowId": DEFAULT_WORKFLOW}, **more}
    operator = FacekiApiOperator(task_id="call", **arguments)
    ti = TaskInstance(try_number=number, max_tries=max_tries)
    return execute(operator, {"task_state_store": store, "ti": ti})[0]


def test_a_call_of_a_killed_try_is_not_repeated_by_itself(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, out = StateStore(), str(tmp_path / "a.json")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", _die)
        with pytest.raises(_Killed):
            _try(store, 1, output_path=out)
    with pytest.raises(AirflowFailException, match="execution of this try"):
        _try(store, 1, output_path=out)
    with pytest.raises(AirflowFailException, match="an earlier try .* clear the task"):
        _try(store, 2, output_path=out)
    assert faceki_sandbox.counters.requests["link"] == 1
    # If Airflow has not received the failure, it retries the task. The retry does not send the call.
    with pytest.raises(AirflowFailException, match="an earlier try .* clear the task"):
        _try(store, 3, output_path=out)
    assert faceki_sandbox.counters.requests["link"] == 1
    # A person clears the task.
    assert _try(store, 4, max_tries=5, output_path=out) == out
    assert faceki_sandbox.counters.requests["link"] == 2
    # If Airflow could not store the return value, it retries the task. The retry does not send the call.
    with pytest.raises(AirflowFailException, match="an earlier try .* clear the task"):
        _try(store, 5, max_tries=5, output_path=out)
    assert faceki_sandbox.counters.requests["link"] == 2


@pytest.mark.parametrize(
    "more", [{"output_path": "full"}, {"max_xcom_bytes": 1}], ids=["not written", "too large"]
)
def test_a_task_that_is_cleared_makes_its_call_again(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: dict[str, Any]
) -> None:
    if "output_path" in more:
        more = {"output_path": str(tmp_path / "a.json")}
    store = StateStore()
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", _full)
        with pytest.raises(AirflowFailException, match="output_path"):
            _try(store, 1, **more)
    with pytest.raises(AirflowFailException, match="an earlier try .* clear the task"):
        _try(store, 2, **more)
    assert _try(store, 3, max_tries=4)
    assert _try(store, 4, max_tries=5)
    assert faceki_sandbox.counters.requests["link"] == 3


def test_a_repeatable_call_leaves_no_mark(faceki_sandbox: FacekiSandbox) -> None:
    store = StateStore()
    assert _try(store, 1, idempotent=True)
    assert store == {}


def test_a_body_that_cannot_be_sent_fails_the_task_at_once(faceki_sandbox: FacekiSandbox) -> None:
    store = StateStore()
    with pytest.raises(AirflowFailException, match="cannot be written as JSON"):
        _try(store, 1, json={"a": {1, 2}})
    assert store == {}
    assert faceki_sandbox.counters.total == 0


@pytest.mark.parametrize(
    "limit", [pytest.param(value, id=repr(value)) for value in ("48", -1, True, 1.5, None)]
)
def test_an_invalid_limit_is_rejected_while_the_dag_is_parsed(limit: Any) -> None:
    with pytest.raises(ValueError, match="max_xcom_bytes must be a whole number"):
        FacekiApiOperator(task_id="call", path="/", max_xcom_bytes=limit)


@pytest.mark.parametrize(
    ("call", "is_idempotent"),
    [
        pytest.param({"path": RECORDS, "query": {"link": "x"}}, True, id="GET is repeated"),
        pytest.param({"method": "POST", "path": LINK}, False, id="POST is not"),
        pytest.param({"method": "POST", "path": LINK, "idempotent": True}, True, id="POST that may be"),
        pytest.param(
            {"path": RECORDS, "query": {"link": "x"}, "idempotent": False}, False, id="GET that may not"
        ),
    ],
)
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param({"kind": "status", "status": 503}, api.ServiceError, id="a failure"),
        pytest.param({"kind": "process_then_reset"}, api.ResponseLostError, id="a lost answer"),
        pytest.param({"kind": "truncated"}, api.UnexpectedResponseError, id="half an answer"),
    ],
)
def test_what_is_repeated(
    faceki_sandbox: FacekiSandbox,
    connect: Connect,
    call: dict[str, Any],
    is_idempotent: bool,
    fault: dict[str, Any],
    error: type[api.FacekiError],
) -> None:
    connect(faceki_sandbox, max_attempts=3, max_wait=0.1)
    # The response must have content, so that a truncated response is shorter.
    faceki_sandbox.add_record("customer-1")
    for route in ("records", "link"):
        faceki_sandbox.add_fault(**fault, route=route, count=None)
    given = {"json": {"workflowId": DEFAULT_WORKFLOW}, **call} if call["path"] == LINK else call
    # If a call must not be sent twice, Airflow's retries must not send it again either.
    told = error if is_idempotent else AirflowFailException
    with pytest.raises(told, match=None if is_idempotent else "clear the task to repeat it"):
        execute(FacekiApiOperator(task_id="call", **given))
    requests = 3 if is_idempotent else 1
    counted = faceki_sandbox.counters.requests
    assert counted.get("records", 0) + counted.get("link", 0) == requests
