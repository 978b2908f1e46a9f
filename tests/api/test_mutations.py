# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Property tests with documented answers whose structure is changed.

A changed answer must not silently become "no record" or "no decision", and a paid call must not return a wrong
decision.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.endpoints.verification import (
    Document,
    FindKycVerification,
    KycVerification,
    PerformKycVerification,
)
from airflow_provider_faceki.api.endpoints.workflows import GetWorkflowRules
from airflow_provider_faceki.api.errors import FacekiError, ResponseError
from airflow_provider_faceki.api.protocol import session
from airflow_provider_faceki.api.protocol.envelope import read_payload
from airflow_provider_faceki.api.protocol.messages import HttpResponse, Json
from airflow_provider_faceki.api.protocol.session import SendRequest, Sleep, Steps
from airflow_provider_faceki.api.uploads import Image
from tests.api.fake_driver import FakeDriver, token
from tests.api.sample_files import REQUEST_ID, sample

IDENTIFIER = "case-4711"
IMAGE = Image.of_bytes("selfie", b"\xff\xd8\xff" + b"x" * 20)


def _lone(decision: str) -> Json:
    document = sample("record_review")
    assert isinstance(document, dict)
    assert isinstance(document["result"], list)
    record = document["result"][0]
    assert isinstance(record, dict)
    record["record_identifier"], record["decision"] = IDENTIFIER, decision
    return document


def _paths(document: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each value in the document, beginning with the document itself."""
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _paths(value, (*path, key))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from _paths(value, (*path, number))


def _at(document: Json, path: tuple[str | int, ...]) -> Json:
    for step in path:
        document = document[step]  # type: ignore[index]  # the path exists in the document
    return document


def _put(document: Json, path: tuple[str | int, ...], value: Json) -> Json:
    if not path:
        return value
    holder = _at(document, path[:-1])
    holder[path[-1]] = value  # type: ignore[index]
    return document


def _respelled(draw: st.DrawFn, key: str) -> str:
    words = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", key) or [key]
    lower = [word.lower() for word in words]
    camel = lower[0] + "".join(word.capitalize() for word in lower[1:])
    capital = camel[:1].upper() + camel[1:]
    spellings = ["_".join(lower), "-".join(lower), camel, capital, key.upper(), key.lower()]
    chosen: str = draw(st.sampled_from(spellings))
    return chosen


def _retyped(draw: st.DrawFn, value: Json) -> Json:
    choices: list[Json] = [[value], {"value": value}, str(value)]
    if isinstance(value, bool):
        choices = [str(value), str(value).lower(), int(value)]
    elif isinstance(value, int):
        choices = [str(value), float(value)]
    return draw(st.sampled_from(choices))


def _mutate(draw: st.DrawFn, document: Json) -> Json:
    """Return the document after one random change of its structure, in the four upper levels."""
    paths = [path for path in _paths(document) if len(path) <= 4]
    path = draw(st.sampled_from(paths))
    value = _at(document, path)
    kind = draw(st.sampled_from(["wrap", "unwrap", "rename", "retype", "move", "null"]))
    if kind == "wrap":
        name = draw(st.sampled_from(["data", "result", "items", "records", "list", "response"]))
        return _put(document, path, [value] if draw(st.booleans()) else {name: value})
    if kind == "unwrap" and isinstance(value, dict | list) and len(value) == 1:
        return _put(document, path, next(iter(value.values())) if isinstance(value, dict) else value[0])
    if not path:
        return document
    key, holder = path[-1], _at(document, path[:-1])
    if kind == "null":
        return _put(document, path, None)
    if kind == "retype" and not isinstance(value, dict | list) and value is not None:
        return _put(document, path, _retyped(draw, value))
    if isinstance(holder, dict) and isinstance(key, str):
        if kind == "rename":
            holder[_respelled(draw, key)] = holder.pop(key)
        elif kind == "move":
            places = [_at(document, place) for place in _paths(document) if len(place) <= 3]
            targets = [
                place
                for place in places
                if isinstance(place, dict) and key not in place and place is not value
            ]
            if targets:
                target = draw(st.sampled_from(targets))
                if not _holds(value, target):
                    target[key] = holder.pop(key)
    return document


def _holds(value: Json, target: Json) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is target or any(_holds(item, target) for item in inner)


@st.composite
def mutations(draw: st.DrawFn, documents: list[Json], most: int = 3) -> tuple[Json, Json]:
    """Draw one of the documents, and return it together with a copy that has one to ``most`` changes."""
    original = draw(st.sampled_from(documents))
    document = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, most))):
        document = _mutate(draw, document)
    return original, document


def _encoded(document: Json) -> HttpResponse:
    return HttpResponse(200, {}, json.dumps(document).encode())


def _holds_word(document: Json, word: str) -> bool:
    return f'"{word}"' in json.dumps(document)


def _perform(steps: Steps[object], answers: dict[str, HttpResponse]) -> tuple[object, list[str]]:
    """Run the steps of a call and return its result and its requests. Each kind of request has one answer."""
    sent: list[str] = []
    effect = next(steps)
    try:
        for _ in range(200):
            if isinstance(effect, SendRequest):
                name = "token" if "/auth/" in effect.request.url else effect.request.method
                sent.append(name)
                try:
                    payload = read_payload(answers[name])
                except ResponseError as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(payload)
            else:
                blocking = getattr(effect, "operation", None)
                effect = steps.send(blocking() if blocking is not None else None)
                assert not isinstance(effect, Sleep) or effect.seconds >= 0
    except StopIteration as end:
        return end.value, sent
    raise AssertionError("it asks for ever")


TOKEN = HttpResponse(200, {}, b'{"responseCode":0,"data":{"access_token":"t1","expires_in":3600}}')
RECORDS: list[Json] = [_lone("ACCEPTED"), _lone("DECLINED")]


@given(mutations(RECORDS))
def test_records(documents: tuple[Json, Json]) -> None:
    original, document = documents
    decision = "ACCEPTED" if _holds_word(original, "ACCEPTED") else "DECLINED"
    driver = FakeDriver()
    driver.store.set(token("t0"))
    asked = FetchRecords(request_id=REQUEST_ID)
    try:
        records, _ = _perform(
            session.call(driver.session, asked), {"GET": _encoded(document), "token": TOKEN}
        )
    except FacekiError:
        return
    assert isinstance(records, tuple)
    # The original contains a record, so an empty result would be a silent "nothing found".
    assert records, document
    for record in records:
        if record.decision is None:
            assert not _holds_word(document, decision), document
        else:
            assert record.decision == decision, document


PAID: list[Json] = [sample("verification"), sample("selfie_not_live"), sample("wallet_empty")]


@given(mutations(PAID), st.booleans())
def test_paid_outcomes(documents: tuple[Json, Json], is_recorded: bool) -> None:
    original, document = documents
    truth = "ACCEPTED" if original is PAID[0] else "DECLINED" if original is PAID[1] else None
    driver = FakeDriver()
    driver.store.set(token("t0"))
    call = PerformKycVerification(
        workflow_id="w",
        selfie=IMAGE,
        documents=[Document(IMAGE)],
        record_identifier=IDENTIFIER,
        lookup_timeout=0.0,
    )
    none = sample("records_none")
    found = _lone(truth) if truth and is_recorded else none
    answers = {"POST": _encoded(document), "GET": _encoded(found), "token": TOKEN}
    try:
        made, sent = _perform(session.call(driver.session, call), answers)
    except FacekiError as error:
        made, sent = error, []
    if isinstance(made, FacekiError):
        # If FACEKI made a decision, the error must say that the call was possibly executed (`is_ambiguous`).
        assert truth is None or made.is_ambiguous, document
        return
    assert isinstance(made, KycVerification)
    assert made.decision is not None
    assert made.decision == truth, document
    # For each answer the verification is sent only once.
    assert sent.count("POST") == 1


FINDABLE: list[Json] = [_lone("ACCEPTED"), _lone("DECLINED")]


@given(mutations(FINDABLE))
def test_a_record_in_another_form_is_found_and_not_charged_again(documents: tuple[Json, Json]) -> None:
    _, document = documents
    driver = FakeDriver()
    driver.store.set(token("t0"))
    asked = FindKycVerification(record_identifier=IDENTIFIER)
    try:
        found, _ = _perform(session.call(driver.session, asked), {"GET": _encoded(document), "token": TOKEN})
    except FacekiError:
        return
    assert found is not None, document


@given(mutations([sample("rules")]))
def test_mutated_rules_keep_all_documents_or_raise(documents: tuple[Json, Json]) -> None:
    _, document = documents
    driver = FakeDriver()
    driver.store.set(token("t0"))
    asked = GetWorkflowRules(workflow_id="w")
    try:
        rules, _ = _perform(session.call(driver.session, asked), {"GET": _encoded(document), "token": TOKEN})
    except FacekiError:
        return
    assert len(rules.documents) == 3, document  # type: ignore[attr-defined]
