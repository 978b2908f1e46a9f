# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What if an id is the word for nothing? A template makes it of a missing value, and people would meet under it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_faceki import api

PICTURE = api.Image.of_bytes("picture", b"\xff\xd8\xff" + b"a" * 20)


def _verify(workflow_id: str, record_identifier: str) -> object:
    return api.PerformKycVerification(
        workflow_id=workflow_id,
        selfie=PICTURE,
        documents=[api.Document(PICTURE)],
        record_identifier=record_identifier,
    )


@pytest.mark.parametrize(
    "word", ["None", "none", "null", "NULL", "undefined", "Undefined", " None ", "null "]
)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda word: _verify("w", word), id="pay"),
        pytest.param(lambda word: _verify(word, "mine"), id="pay for a workflow"),
        pytest.param(lambda word: api.FindKycVerification(record_identifier=word), id="look"),
        pytest.param(lambda word: api.FindKycVerification(request_id=word), id="look by request id"),
        pytest.param(
            lambda word: api.GenerateKycLink(workflow_id="w", record_identifier=word), id="make a link"
        ),
        pytest.param(lambda word: api.GenerateKycLink(workflow_id=word), id="make a link for a workflow"),
        pytest.param(lambda word: api.FetchRecords(link=word), id="fetch by link"),
        pytest.param(lambda word: api.FetchPdfReport(word), id="fetch a report"),
    ],
)
def test_it_is_no_id(make: Callable[[str], object], word: str) -> None:
    with pytest.raises(
        api.ValidationError, match=f"is '{word.strip()}', which is what a template makes of nothing"
    ):
        make(word)


@pytest.mark.parametrize("identifier", ["none-1", "Nonesuch", "nullable", "0", "customer-undefined"])
def test_what_only_looks_like_it_is_one(identifier: str) -> None:
    _verify("w", identifier)
    api.FindKycVerification(record_identifier=identifier)


def test_what_a_faceki_sdk_sends_for_none_can_be_fetched() -> None:
    assert api.FetchRecords(record_identifier="undefined").request().query == (
        ("record_identifier", "undefined"),
    )
    with pytest.raises(api.ValidationError, match="makes of nothing"):
        api.FetchRecords(record_identifier="None")
