# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Records, decisions and summaries, and the parts of a record that ``repr`` and summaries contain."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.errors import UnexpectedResponseError
from airflow_provider_faceki.api.models import Decision, VerificationRecord, final_record, latest
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.messages import Json
from tests.api.sample_files import sample

IDENTIFIERS = ("requestId", "link", "record_identifier")


def _record(**fields: Json) -> VerificationRecord:
    return VerificationRecord(fields)


def _whole() -> dict[str, Json]:
    document = cast("dict[str, list[dict[str, Json]]]", sample("records"))
    return copy.deepcopy(document["result"][0])


def _tainted(value: Json, mark: Callable[[], str]) -> Json:
    """Return ``value`` with every text in it replaced by a new canary."""
    if isinstance(value, str):
        return mark()
    if isinstance(value, list):
        return [_tainted(item, mark) for item in value] or [mark()]
    if isinstance(value, dict):
        return {name: _tainted(item, mark) for name, item in value.items()}
    return value


def test_a_summary_holds_only_ids_and_the_decision() -> None:
    numbers = itertools.count()
    tainted = {name: _tainted(value, lambda: f"canary-{next(numbers)}") for name, value in _whole().items()}
    tainted["fieldOfTomorrow"] = "canary-tomorrow"
    record = VerificationRecord(tainted)
    shown = json.dumps(record.summary()) + repr(record) + str(record)
    assert len(re.findall(r"canary-", json.dumps(tainted))) > 50
    allowed = {tainted[name] for name in (*IDENTIFIERS, "decision")}
    assert set(re.findall(r"canary-\w+", shown)) == allowed
    # The summary must not contain numbers about the person either.
    assert "99.9" not in shown


def test_summary_of_a_whole_record() -> None:
    assert VerificationRecord(_whole()).summary() == {
        "request_id": "b8f1c7de-52c4-4b7a-8f39-6d1e0c9a7742",
        "record_identifier": "case-4711",
        "link": "6e0d5f3c-91a7-4d0f-b8c2-5a4e3b2c1d00",
        "decision": "DECLINED",
        "error_codes": [
            {"code": 5005, "name": "DOCUMENT_FACE_MATCH_FAILED"},
            {"code": 5010, "name": "EXPIRED_DOCUMENT"},
            {"code": 8999, "name": None},
        ],
        "verification_summary": {
            "face_verified": False,
            "selfie_liveness_verified": True,
            "document_verified": True,
            "verification_rules_passed": True,
            "document_liveness_verified": True,
            "image_quality": True,
        },
        "created_at": "2026-03-01T18:00:00+00:00",
        "updated_at": "2026-03-03T07:00:00+00:00",
    }


def test_a_record_keeps_every_field_and_shows_none() -> None:
    whole: dict[str, Json] = {**_whole(), "fieldOfTomorrow": {"deep": ["ZELDA"]}}
    record = VerificationRecord(whole)
    assert record.document == whole
    assert pickle.loads(pickle.dumps(record)) == record  # noqa: S301 - the test itself made the pickle
    assert repr(record) == "<VerificationRecord b8f1c7de-52c4-4b7a-8f39-6d1e0c9a7742 DECLINED>"


def _anything() -> Iterator[object]:
    yield from (None, True, False, 0, -1, 1.5, float("nan"), 10**30)
    yield from ("", " ", "x", "undefined", "\ud800", "9" * 400, "2026-03-01", "0001-01-01T00:00:00+14:00")
    yield from ([], [None], [[]], [{"code": None}], {}, {"code": {}}, {"a": {"b": []}})


@pytest.mark.parametrize("value", [pytest.param(value, id=repr(value)[:30]) for value in _anything()])
def test_a_summary_is_made_from_any_field_values(value: Any) -> None:
    record = VerificationRecord(dict.fromkeys(_whole(), value))
    summary = record.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert all(len(text) <= 512 for text in summary.values() if isinstance(text, str))
    assert repr(record).startswith("<VerificationRecord ")
    assert record.face_id is None or record.face_id == value


@pytest.mark.parametrize(
    ("sent", "word", "final"),
    [
        pytest.param("ACCEPTED", "ACCEPTED", True, id="accepted"),
        pytest.param("DECLINED", "DECLINED", True, id="declined"),
        pytest.param("REVIEW", "REVIEW", False, id="review"),
        pytest.param("review", "REVIEW", False, id="small letters"),
        pytest.param(" Accepted ", "ACCEPTED", True, id="spaces"),
        pytest.param("REJECTED", "REJECTED", True, id="another word"),
        pytest.param("Escalated", "Escalated", True, id="another word in small letters"),
        pytest.param("DECLINED Jane Doe, born 1990", "OTHER", True, id="a sentence"),
        pytest.param("x" * 41, "OTHER", True, id="too long for a word"),
        pytest.param("__class__", "__class__", True, id="a word of Python's"),
    ],
)
def test_decisions(sent: str, word: str, final: bool) -> None:
    decision = _record(decision=sent).decision
    assert isinstance(decision, Decision)
    assert decision == word
    assert (decision.value, str(decision), decision.is_final) == (word, word, final)
    assert decision == Decision(word)
    assert hash(decision) == hash(Decision(word)) == hash(word)
    assert json.dumps(decision) == json.dumps(word)
    assert [m.value for m in Decision] == ["ACCEPTED", "DECLINED", "REVIEW"]


@pytest.mark.parametrize("word", ["ACCEPTED", "ESCALATED"])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_decisions_survive_pickle_and_copy(word: str, protocol: int) -> None:
    decision = Decision(word)
    back = pickle.loads(pickle.dumps(decision, protocol))  # noqa: S301 - the test itself made the pickle
    for other in (back, copy.copy(decision), copy.deepcopy(decision)):
        assert type(other) is Decision
        assert (other, other.value, other.name) == (decision, word, word)
    assert (back is decision) is (word in Decision.__members__)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(None, id="null"),
        pytest.param("", id="empty"),
        pytest.param("  ", id="blank"),
        pytest.param("\u3000", id="ideographic space"),
        pytest.param("\x1f\u200b\x85", id="control and invisible characters"),
        pytest.param(1, id="number"),
        pytest.param("None", id="a word for missing"),
        pytest.param(["ACCEPTED", "DECLINED"], id="list"),
    ],
)
def test_no_decision(sent: Json) -> None:
    assert _record(decision=sent).decision is None
    assert _record(decision=sent).summary()["decision"] is None
    assert _record().decision is None


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        pytest.param([], (), id="none"),
        pytest.param([5005, "5010"], (5005, 5010), id="numbers and strings"),
        pytest.param([{"code": 5005}, {"code": "5010", "message": "x"}], (5005, 5010), id="objects"),
        pytest.param([{"error": 5}, None, True, "x", 5.5, [5005]], (), id="other things"),
        pytest.param({"code": 5005}, (5005,), id="no list"),
        pytest.param(5005, (5005,), id="number"),
        pytest.param("5005", (5005,), id="text"),
        pytest.param(["FACE_CROPPED"], (8004,), id="names"),
        pytest.param([{"errorCode": 5005}, {"error_code": "5010"}], (5005, 5010), id="another key"),
        pytest.param([{"name": "FACE_CROPPED"}], (8004,), id="objects with names"),
        pytest.param(None, (), id="null"),
    ],
)
def test_error_codes(sent: Json, codes: tuple[int, ...]) -> None:
    assert _record(errorCodes=sent).error_codes == codes


@pytest.mark.parametrize(
    ("sent", "flags"),
    [
        pytest.param(True, {"face_verified": True}, id="as documented"),
        pytest.param("true", {"face_verified": True}, id="text"),
        pytest.param("No", {"face_verified": False}, id="word"),
        pytest.param(0, {"face_verified": False}, id="number"),
        pytest.param("Jane Doe", {}, id="a text that is no flag"),
        pytest.param(None, {}, id="null"),
    ],
)
def test_flags(sent: Json, flags: dict[str, bool]) -> None:
    record = VerificationRecord({"decision": "ACCEPTED", "verification_summary": {"face_verified": sent}})
    assert record.summary()["verification_summary"] == flags


@pytest.mark.parametrize("name", ["Jane Doe", "jane\nINFO - forged", "a" * 41, "", "j\u00e4ne", "x\x00"])
def test_a_flag_whose_name_may_be_text_about_the_person_is_left_out(name: str) -> None:
    record = VerificationRecord({"verification_summary": {name: True, "face_verified": False}})
    assert record.summary()["verification_summary"] == {"face_verified": False}


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        pytest.param("2026-03-02T09:15:30.123Z", "2026-03-02T09:15:30.123000+00:00", id="as documented"),
        pytest.param("2026-03-02T09:15:30+03:00", "2026-03-02T09:15:30+03:00", id="another zone"),
        pytest.param("2026-03-02T09:15:30", "2026-03-02T09:15:30+00:00", id="no zone"),
        pytest.param("2026-03-02", "2026-03-02T00:00:00+00:00", id="a day"),
        pytest.param("yesterday", None, id="word"),
        pytest.param(1_770_000_000, "2026-02-02T02:40:00+00:00", id="Unix seconds"),
        pytest.param(1_770_000_000_500, "2026-02-02T02:40:00.500000+00:00", id="Unix milliseconds"),
        pytest.param("1770000000", "2026-02-02T02:40:00+00:00", id="Unix seconds as text"),
        pytest.param({"$date": "2026-03-02T09:15:30Z"}, "2026-03-02T09:15:30+00:00", id="MongoDB"),
        pytest.param(12, None, id="another number"),
        pytest.param(True, None, id="true"),
        pytest.param(None, None, id="null"),
    ],
)
def test_times_of_a_record_are_shown_in_utc(sent: Json, shown: str | None) -> None:
    summary = _record(createdAt=sent, updatedAt=sent).summary()
    assert (summary["created_at"], summary["updated_at"]) == (shown, shown)


EARLY = _record(requestId="early", createdAt="2026-01-01T10:00:00Z", decision="DECLINED")
LATE = _record(requestId="late", createdAt="2026-01-01T12:30:00+02:00", decision="ACCEPTED")
UNDATED = _record(requestId="undated", createdAt="", decision="ACCEPTED")
UNDATED_TOO = _record(requestId="undated too", decision="ACCEPTED")
IN_REVIEW = _record(requestId="in review", createdAt="2026-01-02T10:00:00Z", decision="REVIEW")
UNDECIDED = _record(requestId="undecided", createdAt="2026-01-03T10:00:00Z")
STRANGE = _record(requestId="strange", createdAt="2026-01-04T10:00:00Z", decision="ESCALATED")
TWIN = _record(requestId="twin", createdAt="2026-01-01T10:30:00Z", decision="DECLINED")


@pytest.mark.parametrize(
    ("records", "newest"),
    [
        pytest.param([], None, id="none"),
        pytest.param([EARLY], EARLY, id="one"),
        pytest.param([EARLY, LATE], LATE, id="in order"),
        pytest.param([LATE, EARLY], LATE, id="newest first"),
        pytest.param([LATE, UNDATED], LATE, id="without a time is older"),
        pytest.param([UNDATED, UNDATED_TOO], UNDATED_TOO, id="the last of equals"),
        pytest.param([LATE, TWIN], TWIN, id="the last of the same moment"),
        pytest.param([LATE, UNDECIDED, EARLY], UNDECIDED, id="undecided counts"),
    ],
)
def test_latest(records: list[VerificationRecord], newest: VerificationRecord | None) -> None:
    assert latest(records) is newest
    assert latest(iter(records)) is newest


@pytest.mark.parametrize(
    ("records", "waiting_for_people", "at_once"),
    [
        pytest.param([], None, None, id="none"),
        pytest.param([EARLY], EARLY, EARLY, id="decided"),
        pytest.param([EARLY, IN_REVIEW], None, IN_REVIEW, id="in review"),
        pytest.param([IN_REVIEW, UNDECIDED], None, None, id="newest undecided"),
        pytest.param([UNDECIDED, STRANGE], STRANGE, STRANGE, id="an undocumented word"),
    ],
)
def test_decided(
    records: list[VerificationRecord],
    waiting_for_people: VerificationRecord | None,
    at_once: VerificationRecord | None,
) -> None:
    assert final_record(records, wait_for_review=True) is waiting_for_people
    assert final_record(records, wait_for_review=False) is at_once


@pytest.mark.parametrize(
    ("fetch", "field", "same"),
    [
        pytest.param(FetchRecords(request_id="AB-1"), "requestId", "ab-1", id="request_id"),
        pytest.param(FetchRecords(link="AB-1"), "link", "ab-1", id="link"),
        pytest.param(FetchRecords(record_identifier="AB-1"), "record_identifier", "AB-1", id="identifier"),
        pytest.param(FetchRecords(face_id="AB-1"), "face_id", "ab-1", id="face_id"),
    ],
)
def test_records_with_another_identifier_are_dropped(fetch: FetchRecords, field: str, same: str) -> None:
    own: Json = {field: same, "decision": "ACCEPTED"}
    silent: Json = {"decision": "DECLINED"}
    other: Json = {field: "somebody-else", "decision": "ACCEPTED"}
    answer: Json = [other, own, silent, other]
    assert [record.document for record in fetch.read(Payload(answer, answer))] == [own, silent]
    with pytest.raises(UnexpectedResponseError, match="only records of other verifications") as caught:
        fetch.read(Payload([other, other], [other, other]))
    assert not caught.value.is_transient
    assert "somebody" not in str(caught.value)


def test_records_with_the_identifier_undefined_are_kept() -> None:
    answer: Json = [{"record_identifier": "undefined", "decision": "ACCEPTED"}]
    assert len(FetchRecords(record_identifier="undefined").read(Payload(answer, answer))) == 1
