# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Cleared tasks: if the arguments then belong to another person, each person gets their own result.

This can also happen if the list of a mapped task has changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki import api, storage
from airflow_provider_faceki.operators import verification
from airflow_provider_faceki.operators.images import FacekiFaceMatchOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.batch.harness import keep_no_records
from tests.billing.image_files import image_bytes, write
from tests.billing.tries import FileStateStore, Tries
from tests.sandbox_delays import HeldDelays


class ClearedTask:
    """A task instance whose arguments render to the current value of :attr:`given`."""

    def __init__(self, store: FileStateStore | None, **given: Any) -> None:
        self.given = given
        self.task = Tries(self._make, store)

    def _make(self) -> FacekiKycVerificationOperator:
        return FacekiKycVerificationOperator(task_id="verify", **self.given)

    def now(self, **given: Any) -> Any:
        """Clear the task, and run it with these arguments."""
        self.given.update(given)
        return self.task.go()


@pytest.fixture
def cleared(sandbox: FacekiSandbox, store: FileStateStore | None, images: dict[str, Any]) -> ClearedTask:
    return ClearedTask(store, resubmit_after=0.5, lookup_timeout=0.2, **images)


def written(place: Path) -> object:
    return json.loads(place.read_text())["record_identifier"]


def test_each_record_identifier_gets_its_own_result(
    sandbox: FacekiSandbox, cleared: ClearedTask, tmp_path: Path
) -> None:
    place = tmp_path / "record.json"
    for identifier, decision in [("accepted-anna", "ACCEPTED"), ("declined-bob", "DECLINED")] * 2:
        summary = cleared.now(record_identifier=identifier, output_path=str(place))
        assert (summary["record_identifier"], summary["decision"]) == (identifier, decision)
        assert written(place) == identifier
    assert sandbox.ledger == {"accepted-anna": 1, "declined-bob": 1}


def test_each_record_identifier_gets_its_own_result_without_records(
    sandbox: FacekiSandbox,
    cleared: ClearedTask,
    store: FileStateStore | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep_no_records(sandbox, monkeypatch)
    cleared.now(record_identifier="accepted-anna")
    if store is None:
        with pytest.raises(AirflowFailException, match="stores no records"):
            cleared.now(record_identifier="declined-bob")
        return
    for _ in range(2):
        assert cleared.now(record_identifier="declined-bob")["decision"] == "DECLINED"
        assert cleared.now(record_identifier="accepted-anna")["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-anna": 1, "declined-bob": 1}


def test_an_unfinished_call_does_not_block_another_identifier(
    sandbox: FacekiSandbox,
    held_delays: HeldDelays,
    images: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verification, "MIN_RECONCILE_INTERVAL_SECONDS", 0.5)
    cleared = ClearedTask(
        FileStateStore(tmp_path / "store.json"), resubmit_after=600.0, lookup_timeout=0.1, **images
    )
    sandbox.add_fault("reset_then_process", route="verify")
    with pytest.raises(api.OutcomeUnknownError):
        cleared.now(record_identifier="accepted-anna")
    assert cleared.now(record_identifier="declined-bob", resubmit="never")["decision"] == "DECLINED"
    # FACEKI has not finished the first verification yet, so the second one did not wait for it.
    assert sandbox.ledger == {"declined-bob": 1}
    held_delays.end_after_polls(sandbox)
    assert cleared.now(record_identifier="accepted-anna", resubmit="if_absent")["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-anna": 1, "declined-bob": 1}
    assert sandbox.counters.requests["verify"] == 2


def test_after_resubmit_never_a_user_can_choose_another_resubmit(
    sandbox: FacekiSandbox, cleared: ClearedTask
) -> None:
    sandbox.add_fault("reset_after_body", route="verify")
    with pytest.raises(api.OutcomeUnknownError):
        cleared.now(record_identifier="accepted-anna", resubmit="never")
    for _ in range(2):
        with pytest.raises(AirflowFailException, match="then clear the task with another resubmit"):
            cleared.now()
    assert cleared.now(resubmit="if_absent")["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-anna": 1}


@pytest.fixture
def derived(sandbox: FacekiSandbox, images: dict[str, Any], tmp_path: Path) -> ClearedTask:
    """A task without a given identifier, so that the operator derives one. Airflow has a task state store."""
    return ClearedTask(
        FileStateStore(tmp_path / "store.json"), resubmit_after=1.0, lookup_timeout=0.1, **images
    )


@pytest.mark.parametrize("lost", [False, True], ids=["verified", "perhaps verified"])
@pytest.mark.parametrize("which", ["selfie", "a back", "one more document"])
def test_a_derived_identifier_is_rejected_for_other_images(
    sandbox: FacekiSandbox, derived: ClearedTask, tmp_path: Path, which: str, lost: bool
) -> None:
    mine, other = dict(derived.given), write(tmp_path, "other.jpg")
    others: dict[str, dict[str, Any]] = {
        "selfie": {"selfie": other},
        "a back": {"documents": [{**mine["documents"][0], "back": other}]},
        "one more document": {"documents": [*mine["documents"], other]},
    }
    if lost:
        sandbox.add_fault("process_then_reset", route="verify")
        sandbox.add_fault("status", route="records", status=502, skip=1, count=6)
        with pytest.raises(api.OutcomeUnknownError):
            derived.now()
        sandbox.clear_faults()
    else:
        derived.now()
    with pytest.raises(AirflowFailException, match="other images.*set a record_identifier"):
        derived.now(**others[which])
    assert derived.now(**mine)["decision"] == "ACCEPTED"
    assert list(sandbox.ledger.values()) == [1]
    bob = derived.now(record_identifier="declined-bob", **others["selfie"])
    assert bob["decision"] == "DECLINED"


@pytest.mark.parametrize("method", ["resume_reconciliation", "resume_review"])
def test_images_that_change_during_a_deferral(
    sandbox: FacekiSandbox, derived: ClearedTask, tmp_path: Path, method: str
) -> None:
    derived.now()
    task = derived.task
    derived.given["selfie"] = write(tmp_path, "other.jpg")
    context: Any = {"ti": task.ti, "params": {}, "task_state_store": task.store}
    with pytest.raises(AirflowFailException, match="other images.*set a record_identifier"):
        getattr(task.make(), method)(context, {"status": "decided"})


def test_where_nothing_was_sent_images_may_change(
    sandbox: FacekiSandbox, derived: ClearedTask, tmp_path: Path
) -> None:
    sandbox.add_fault("code", route="verify", code=5003)
    with pytest.raises(AirflowFailException, match="5003"):
        derived.now()
    assert derived.now(selfie=write(tmp_path, "other.jpg"))["decision"] == "ACCEPTED"


def test_always_verifies_other_images_too(
    sandbox: FacekiSandbox, derived: ClearedTask, tmp_path: Path
) -> None:
    first = derived.now(resubmit="always")
    second = derived.now(selfie=write(tmp_path, "other.jpg"))
    assert first["request_id"] != second["request_id"]
    # The stored outcome belongs to the last images.
    assert derived.now(resubmit="if_absent")["request_id"] == second["request_id"]


def test_a_given_identifier_accepts_changed_images(
    sandbox: FacekiSandbox, cleared: ClearedTask, tmp_path: Path
) -> None:
    first = cleared.now(record_identifier="accepted-anna")
    assert cleared.now(selfie=write(tmp_path, "moved.jpg"))["request_id"] == first["request_id"]
    assert sandbox.ledger == {"accepted-anna": 1}


@pytest.mark.parametrize(
    ("how", "found", "bills"),
    [
        pytest.param("another image", ["bob"], 2, id="another image"),
        pytest.param("another in its place", ["bob"], 2, id="another in the same place"),
        pytest.param("gone", ["anna"], 1, id="the same, which has gone"),
        pytest.param("same", ["anna"], 1, id="the same"),
    ],
)
def test_stored_matches_belong_to_their_image(
    sandbox: FacekiSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    found: list[str],
    bills: int,
) -> None:
    anna, bob = image_bytes(seed=5), image_bytes(5000, seed=6)
    sandbox.add_record("anna", selfie=anna)
    sandbox.add_record("bob", selfie=bob)
    given = {"selfie": write(tmp_path, "anna.jpg", anna)}
    task = Tries(
        lambda: FacekiFaceMatchOperator(task_id="t", output_path=str(tmp_path / "found.json"), **given),
        FileStateStore(tmp_path / "store.json"),
    )
    with monkeypatch.context() as full:
        full.setattr(storage, "write_json", _full)
        with pytest.raises(OSError, match="no space left"):
            task.go()
    if how == "another image":
        given["selfie"] = write(tmp_path, "bob.jpg", bob)
    elif how == "another in its place":
        write(tmp_path, "anna.jpg", bob)
    elif how == "gone":
        (tmp_path / "anna.jpg").unlink()
    assert [summary["record_identifier"] for summary in task.go()] == found
    assert len(sandbox.bills) == bills
    assert [
        record["record_identifier"] for record in json.loads((tmp_path / "found.json").read_text())
    ] == found


def _full(*_: object) -> str:
    raise OSError("no space left")


def test_images_are_kept_as_hashes(sandbox: FacekiSandbox, derived: ClearedTask) -> None:
    derived.now()
    assert derived.task.store is not None
    assert "selfie" not in derived.task.store.path.read_text()
