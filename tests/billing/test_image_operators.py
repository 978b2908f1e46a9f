# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""API calls about one image: results, and lost responses of charged calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_faceki import api, storage
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.operators.images import (
    FacekiAnalyzeFaceOperator,
    FacekiCheckImageOperator,
    FacekiFaceMatchOperator,
)
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import execute
from tests.api.fake_server import FakeServer, reply_bytes, reply_json
from tests.billing.conftest import NOWHERE, Connect
from tests.billing.image_files import image_bytes, verification, write
from tests.billing.tries import FileStateStore, Tries, mark

SEARCH = "/api/v3/kyc_verification/search-by-face"
ANALYSIS = {
    "min_age": 25.0,
    "max_age": 33.0,
    "gender": "Female",
    "gender_confidence": 100.0,
    "face_detection_confidence": 99.999,
    "liveness_score": 0.999,
}
CHARGED = [
    pytest.param(FacekiFaceMatchOperator, "search_by_face", id="face match"),
    pytest.param(FacekiAnalyzeFaceOperator, "analyze_face", id="face analysis"),
]


@pytest.fixture
def selfie(tmp_path: Path) -> str:
    return write(tmp_path, "selfie.jpg", image_bytes(seed=9))


def test_face_match(sandbox: FacekiSandbox, selfie: str, tmp_path: Path) -> None:
    for identifier in ("a", "b"):
        sandbox.add_record(identifier, selfie=image_bytes(seed=9))
    sandbox.add_record("somebody else", selfie=image_bytes(seed=10))
    made = FacekiFaceMatchOperator(task_id="match", selfie=selfie, output_path=str(tmp_path / "found.json"))
    found, pushed = execute(made)
    assert [summary["record_identifier"] for summary in found] == ["a", "b"]
    assert pushed == {"output_path": str(tmp_path / "found.json")}
    records = json.loads((tmp_path / "found.json").read_text())
    assert [record["record_identifier"] for record in records] == ["a", "b"]
    assert records[0]["document_data"][0]["full_name"]
    assert "full_name" not in json.dumps(found)
    assert [bill.what for bill in sandbox.bills] == ["face_match"]


@pytest.mark.parametrize("not_found", ["empty", "8013", "404"])
def test_an_unknown_face_has_no_matches(sandbox: FacekiSandbox, selfie: str, not_found: str) -> None:
    sandbox.settings.not_found = not_found
    assert execute(FacekiFaceMatchOperator(task_id="match", selfie=selfie)) == ([], {})


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(reply_bytes(b"<html>not here</html>", 404), id="a web server's"),
        pytest.param(reply_json({"statusCode": 404, "message": "Cannot POST"}, 404), id="a framework's"),
    ],
)
def test_a_404_without_a_code_is_an_error_and_not_no_match(reply: Any) -> None:
    with FakeServer() as server:
        server.on(SEARCH, reply)
        client = api.FacekiClient("client", server.url, service=api.Service(base_url=server.url))
        with pytest.raises(api.NotFoundError):
            client.call(api.FaceMatch(api.Image.of_bytes("selfie", image_bytes())))


def test_face_analysis(sandbox: FacekiSandbox, selfie: str) -> None:
    assert execute(FacekiAnalyzeFaceOperator(task_id="analyze", selfie=selfie)) == (ANALYSIS, {})
    assert [bill.what for bill in sandbox.bills] == ["analyze_face"]


def test_image_check(sandbox: FacekiSandbox, connect: Connect, selfie: str) -> None:
    connect(sandbox, addon_url=sandbox.url)
    done, _ = execute(FacekiCheckImageOperator(task_id="check", image=selfie))
    assert done == {"objects": ["face"], "quality": 123.4, "is_live": True, "liveness_score": 0.91}
    assert sandbox.bills == ()


def test_the_add_on_host_gets_no_token(connect: Connect, sandbox: FacekiSandbox, selfie: str) -> None:
    with FakeServer() as addon:
        addon.on("/advance/detect", reply_json({"objects_detected": []}))
        connect(sandbox, addon_url=addon.url)
        hook = FacekiHook()
        hook.get_access_token()
        done, _ = execute(FacekiCheckImageOperator(task_id="check", image=selfie))
        (received,) = addon.received
    assert done == {"objects": [], "quality": None, "is_live": None, "liveness_score": None}
    assert received.header("authorization") is None
    assert hook.get_access_token().encode() not in received.body


def test_an_image_check_may_be_repeated(sandbox: FacekiSandbox, connect: Connect, selfie: str) -> None:
    connect(sandbox, addon_url=sandbox.url)
    sandbox.add_fault("status", route="detect_advanced", status=502)
    done, _ = execute(FacekiCheckImageOperator(task_id="check", image=selfie))
    assert done["quality"] == 123.4
    assert sandbox.counters.requests["detect_advanced"] == 2


@pytest.mark.parametrize(("operator", "route"), CHARGED)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "process_then_reset"}, id="dropped after processing"),
        pytest.param({"kind": "reset_after_body"}, id="dropped before processing"),
        pytest.param({"kind": "status", "status": 502}, id="502"),
        pytest.param({"kind": "truncated"}, id="half an answer"),
        pytest.param({"kind": "code", "code": 8003}, id="please try again"),
    ],
)
def test_a_lost_response_of_a_charged_call_fails_without_a_retry(
    sandbox: FacekiSandbox, selfie: str, operator: Any, route: str, fault: dict[str, Any], tmp_path: Path
) -> None:
    sandbox.add_fault(**fault, route=route)
    store = FileStateStore(tmp_path / "store.json")
    task = Tries(lambda: operator(task_id="t", selfie=selfie), store)
    with pytest.raises(
        AirflowFailException, match="The call may have been charged, so it is not sent again"
    ) as told:
        task.go()
    # A callback of the DAG can find the error in `__cause__`. This error has no cause itself, so the traceback in the
    # log contains no text of the HTTP library.
    cause = told.value.__cause__
    assert isinstance(cause, api.OutcomeUnknownError)
    assert cause.__cause__ is cause.__context__ is None
    assert sandbox.counters.requests[route] == 1
    # If Airflow has not received the failure, it retries the task. The retry does not send the call.
    with pytest.raises(AirflowFailException, match="clear the task to repeat it"):
        task.go()
    assert sandbox.counters.requests[route] == 1
    # A user has seen the failure and clears the task, so the call is sent.
    task.clear()
    assert task.go() is not None
    assert sandbox.counters.requests[route] == 2


@pytest.mark.parametrize(("operator", "route"), CHARGED)
@pytest.mark.parametrize(
    "fault",
    [{"kind": "status", "status": 429, "retry_after": 0}, {"kind": "status", "status": 401}],
    ids=["429", "401"],
)
def test_a_call_that_was_not_processed_is_sent_again(
    sandbox: FacekiSandbox, selfie: str, operator: Any, route: str, fault: dict[str, Any]
) -> None:
    sandbox.add_fault(**fault, route=route)
    execute(operator(task_id="t", selfie=selfie))
    assert sandbox.counters.requests[route] == 2
    assert len(sandbox.bills) == 1


@pytest.mark.parametrize(("operator", "route"), CHARGED)
def test_a_killed_try_fails_the_next_one_once(
    sandbox: FacekiSandbox, selfie: str, operator: Any, route: str, tmp_path: Path
) -> None:
    store = FileStateStore(tmp_path / "store.json")
    mark(store, 1.0)
    task = Tries(lambda: operator(task_id="t", selfie=selfie), store)
    for _ in range(2):
        with pytest.raises(AirflowFailException, match="clear the task to repeat it") as told:
            task.go()
        assert isinstance(told.value.__cause__, api.OutcomeUnknownError)
    assert route not in sandbox.counters.requests
    task.clear()
    task.go()
    assert len(sandbox.bills) == 1
    assert not store.has_intent


@pytest.mark.parametrize(
    ("code", "told"),
    [
        pytest.param(8006, "VerificationError: .*8006 FACE_NOT_FOUND", id="no face"),
        pytest.param(5003, "QuotaError: .*5003", id="no credit"),
    ],
)
@pytest.mark.parametrize(("operator", "route"), CHARGED)
def test_an_answer_that_is_an_error(
    sandbox: FacekiSandbox, selfie: str, operator: Any, route: str, code: int, told: str, tmp_path: Path
) -> None:
    sandbox.add_fault("code", route=route, code=code)
    store = FileStateStore(tmp_path / "store.json")
    with pytest.raises(AirflowFailException, match=told):
        Tries(lambda: operator(task_id="t", selfie=selfie), store).go()
    assert not store.has_intent


@pytest.mark.parametrize(("output_path", "told"), NOWHERE)
def test_no_charge_is_made_for_an_invalid_output_path(
    sandbox: FacekiSandbox, selfie: str, output_path: str, told: str
) -> None:
    with pytest.raises(AirflowFailException, match=told):
        execute(FacekiFaceMatchOperator(task_id="t", selfie=selfie, output_path=output_path))
    assert sandbox.counters.total == 0


@pytest.mark.parametrize("keeps_records", [True, False])
def test_records_that_could_not_be_written_are_not_charged_again(
    sandbox: FacekiSandbox,
    selfie: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keeps_records: bool,
) -> None:
    sandbox.add_record("a", "DECLINED", selfie=image_bytes(seed=9))
    store, output = FileStateStore(tmp_path / "store.json"), tmp_path / "found.json"
    task = Tries(lambda: FacekiFaceMatchOperator(task_id="t", selfie=selfie, output_path=str(output)), store)
    for _ in range(2):
        with monkeypatch.context() as full:
            full.setattr(storage, "write_json", _full)
            with pytest.raises(OSError, match="no space left"):
                task.go()
        assert "full_name" not in store.path.read_text()
    if not keeps_records:
        sandbox.add_fault("code", route="records", code=8013, count=None)
    (summary,) = task.go()
    assert (summary["record_identifier"], summary["decision"]) == ("a", "DECLINED")
    assert ("full_name" in output.read_text()) is keeps_records
    assert len(sandbox.bills) == 1
    # If the finished task is cleared, it searches again, because the result can be different now.
    task.clear()
    task.go()
    assert len(sandbox.bills) == 2


@pytest.mark.parametrize("output_path", [None, "found.json"])
def test_a_face_match_that_is_retried_after_its_end_returns_what_it_found(
    sandbox: FacekiSandbox, selfie: str, tmp_path: Path, output_path: str | None
) -> None:
    # Airflow retries a finished task if it could not store the return value, or if the worker was killed before it had
    # passed the return value to Airflow.
    sandbox.add_record("a", selfie=image_bytes(seed=9))
    output = str(tmp_path / output_path) if output_path else None
    task = Tries(
        lambda: FacekiFaceMatchOperator(task_id="t", selfie=selfie, output_path=output),
        FileStateStore(tmp_path / "store.json"),
    )
    found = task.go()
    assert [summary["record_identifier"] for summary in task.go()] == ["a"]
    assert len(found) == len(sandbox.bills) == 1
    # The cleared task searches again, and its retry returns the new result.
    task.clear()
    sandbox.add_record("b", selfie=image_bytes(seed=9))
    for _ in range(2):
        assert [summary["record_identifier"] for summary in task.go()] == ["a", "b"]
    assert len(sandbox.bills) == 2


def test_a_face_analysis_that_is_retried_after_its_end_is_not_sent_again(
    sandbox: FacekiSandbox, selfie: str, tmp_path: Path
) -> None:
    task = Tries(
        lambda: FacekiAnalyzeFaceOperator(task_id="t", selfie=selfie), FileStateStore(tmp_path / "store.json")
    )
    task.go()
    for _ in range(2):
        with pytest.raises(AirflowFailException, match="an earlier try made this call.*clear the task"):
            task.go()
    assert len(sandbox.bills) == 1
    task.clear()
    task.go()
    assert len(sandbox.bills) == 2


def test_without_a_state_store_unwritten_records_leave_summaries(
    sandbox: FacekiSandbox, selfie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.add_record("a", selfie=image_bytes(seed=9))
    output = str(tmp_path / "found.json")
    monkeypatch.setattr(storage, "write_json", _full)
    task = Tries(lambda: FacekiFaceMatchOperator(task_id="t", selfie=selfie, output_path=output), None)
    with pytest.raises(AirflowFailException, match="summaries are in XCom 'found'"):
        task.go()
    found: Any = task.ti.pushed["found"]
    assert [summary["record_identifier"] for summary in found] == ["a"]


def _full(*_: object) -> str:
    raise OSError("no space left")


def test_an_image_that_is_being_written_may_be_complete_next_time(
    sandbox: FacekiSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "growing.jpg"
    place.write_bytes(image_bytes(1000))
    looks: Callable[..., api.Image] = api.Image.checked

    def grows(*arguments: Any) -> api.Image:
        looked_at = looks(*arguments)
        place.write_bytes(image_bytes(2000))
        return looked_at

    store = FileStateStore(tmp_path / "store.json")
    task = Tries(lambda: FacekiAnalyzeFaceOperator(task_id="t", selfie=place.as_uri()), store)
    monkeypatch.setattr(api.Image, "checked", grows)
    with pytest.raises(AirflowException, match="selfie became longer while it was sent") as caught:
        task.go()
    assert not isinstance(caught.value, AirflowFailException)
    monkeypatch.undo()


def test_face_match_after_a_verification(sandbox: FacekiSandbox, hook: FacekiHook, selfie: str) -> None:
    hook.call(verification("declined-1", sandbox.connection()["extra"]["workflow_id"]))  # type: ignore[index]
    found = hook.call(api.FaceMatch(api.Image.of_bytes("selfie", image_bytes(seed=1))))
    assert [record.decision for record in found] == [api.Decision.DECLINED]
