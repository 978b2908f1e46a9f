# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the provider with each dialect of the sandbox.

The provider either returns the correct result or reports what it found. No verification is billed twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.dialects import DIALECTS

CALLS = ("records", "no records", "rules", "link", "verification", "report", "records, new token")
RECORDS = ("records", "no records", "records, new token")
IMAGE = b"\xff\xd8\xff\xe0 no image, but it begins as one"
#: Maps each dialect to the calls that end with an error. Each call is mapped to a part of the error text.
ERRORS: dict[str, dict[str, str]] = {
    "records-null": dict.fromkeys(RECORDS, "set null_result to no_record"),
    "records-text": dict.fromkeys(RECORDS, "records_path"),
    "records-empty": dict.fromkeys(RECORDS, "HTTP 204"),
    "records-nan": dict.fromkeys(("records", "records, new token"), "NaN"),
    "records-not-gzip": dict.fromkeys(RECORDS, "answer"),
    "records-latin-1": dict.fromkeys(RECORDS, "encoding"),
    "rules-without-documents": {"rules": "documents"},
    "web-page": dict.fromkeys(CALLS, "check the API base URL"),
    "moved": {**dict.fromkeys(CALLS, "check the API base URL"), "report": "elsewhere.example"},
}


@pytest.fixture
def outcomes(faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Make each call and return its result or its error."""
    extra = {"token_store": "memory", "max_attempts": 1, "timeout": 120, **faceki_sandbox.dialect.connection}
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(faceki_sandbox.connection(**extra)))
    if "pdf-after-logo" in faceki_sandbox.settings.dialect:
        faceki_sandbox.settings.pdf_form = "json-url"
    record = faceki_sandbox.add_record("order-1")
    hook = FacekiHook()

    def verify() -> object:
        document = {"front": IMAGE, "back": IMAGE}
        done = hook.perform_kyc_verification(
            selfie=IMAGE, documents=[document], record_identifier="order-2", lookup_timeout=2
        )
        return done.decision

    def fetch(identifier: str) -> list[object]:
        return [found.decision for found in hook.fetch_records(record_identifier=identifier)]

    def report() -> object:
        return hook.get_pdf_report(str(record["requestId"])) is not None

    def fetch_with_a_new_token() -> object:
        faceki_sandbox.revoke_tokens()
        return fetch("order-1")

    calls: dict[str, Callable[[], object]] = {
        "records": lambda: fetch("order-1"),
        "no records": lambda: fetch("nobody"),
        "rules": lambda: list(hook.get_workflow_rules().documents),
        "link": lambda: hook.generate_kyc_link().link in faceki_sandbox.store.links,
        "verification": verify,
        "report": report,
        "records, new token": fetch_with_a_new_token,
    }
    made: dict[str, object] = {}
    for name, call in calls.items():
        try:
            made[name] = call()
        except api.FacekiError as error:
            made[name] = error
    return made


@pytest.mark.parametrize("faceki_sandbox", DIALECTS, indirect=True)
def test_each_call_is_understood_or_says_what_it_found(
    faceki_sandbox: FacekiSandbox, outcomes: dict[str, object], request: pytest.FixtureRequest
) -> None:
    name = faceki_sandbox.settings.dialect
    expected = {
        "records": ["ACCEPTED"],
        "no records": [],
        "rules": ["ID Card"],
        "link": True,
        "verification": "ACCEPTED",
        "report": True,
        "records, new token": ["ACCEPTED"],
    }
    errors = ERRORS.get(name, {})
    for call, outcome in outcomes.items():
        if call in errors:
            assert isinstance(outcome, api.FacekiError), call
            assert errors[call] in str(outcome)
        else:
            assert outcome == expected[call], call
    assert faceki_sandbox.ledger == ({} if "verification" in errors else {"order-2": 1})
