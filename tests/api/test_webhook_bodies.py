# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Webhook bodies with very many fields or with very long field names, which a sender with a leaked token can send."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from types import FrameType

import pytest

from airflow_provider_faceki.api.protocol.webhook import MAX_FIELDS, InvalidWebhookError, parse_webhook

REQUEST_ID = "973f1bb2-c4a6-424c-ae61-d220202b0611"
WEBHOOK = {"requestId": REQUEST_ID, "status": "ACCEPTED"}
#: Maximum number of function calls for a body that is refused because of its number of fields.
MAX_CALLS = 5 * MAX_FIELDS


def _fields(count: int) -> dict[str, int]:
    return {f"field {number}": 0 for number in range(count)}


def _refusal(body: object) -> str:
    with pytest.raises(InvalidWebhookError) as caught:
        parse_webhook(json.dumps(body).encode())
    return str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(WEBHOOK | _fields(MAX_FIELDS - 2), id="in the body itself"),
        pytest.param({"data": WEBHOOK | _fields(MAX_FIELDS - 3)}, id="in an object"),
        pytest.param(
            WEBHOOK | {"kycData": {"scans": {"text": _fields(5000)}}}, id="below the searched objects"
        ),
    ],
)
def test_as_many_fields_as_allowed(body: object) -> None:
    assert parse_webhook(json.dumps(body).encode()).request_id == REQUEST_ID


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(WEBHOOK | _fields(MAX_FIELDS - 1), id="in the body itself"),
        pytest.param({"data": _fields(12_000), "result": _fields(9_000)}, id="in two objects"),
        pytest.param({f"o{number}": _fields(30) for number in range(300)}, id="in many objects"),
    ],
)
def test_more_fields_are_refused_at_once(body: object) -> None:
    calls = 0

    def count(_frame: FrameType, event: str, _given: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    earlier = sys.getprofile()
    sys.setprofile(count)
    try:
        refusal = _refusal(body)
    finally:
        sys.setprofile(earlier)
    assert refusal == f"the body has more than {MAX_FIELDS} fields"
    # The limit shows that the fields were counted, but not searched. A search calls functions for each field and for
    # each name that a field can have.
    assert calls < MAX_CALLS


def test_long_field_names_do_not_stay_in_memory() -> None:
    _refusal({"x": 1})
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20):
            assert "1 key" in _refusal({f"{number:05d}" + "A_" * 20_000: 1})
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000
