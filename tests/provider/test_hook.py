# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Each method of the hook calls its endpoint of a local FACEKI, and a used hook can be copied."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import redact

from airflow_provider_faceki import api
from airflow_provider_faceki.hooks import faceki as hook_module
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import WORKFLOW_PASSPORT
from tests.api.certificates import Authority
from tests.api.fake_server import FakeServer
from tests.billing.image_files import image_bytes, write


@pytest.fixture
def hook(faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch) -> FacekiHook:
    connection = faceki_sandbox.connection(
        token_store="memory", pdf_report_path=faceki_sandbox.settings.pdf_path
    )
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
    return FacekiHook()


SELFIE = image_bytes(seed=1)
CARD = [{"front": image_bytes(seed=2), "back": image_bytes(seed=3)}]


def verified(hook: FacekiHook, identifier: str = "accepted-1") -> api.KycVerification:
    return hook.perform_kyc_verification(selfie=SELFIE, documents=CARD, record_identifier=identifier)


def test_a_link_is_made_and_its_rules_and_records_are_found(
    hook: FacekiHook, faceki_sandbox: FacekiSandbox
) -> None:
    link = hook.generate_kyc_link(record_identifier="order-7", expires_in_minutes=5)
    assert hook.get_workflow_rules(link=link.link).documents == hook.get_workflow_rules().documents
    assert hook.fetch_records(link=link.link) == ()
    faceki_sandbox.decide(link.link, "ACCEPTED")
    assert hook.fetch_records(record_identifier="order-7") == hook.fetch_records(link=link.link)
    assert len(hook.fetch_records(link=link.link)) == 1
    # The page's URL, and the output of the link task.
    assert len(hook.fetch_records(link=link.url)) == len(hook.fetch_records(link={"link": link.link})) == 1


@pytest.mark.parametrize("mode", ["method", "call", "acall"])
def test_a_new_link_is_masked_in_logs(hook: FacekiHook, mode: str) -> None:
    """Airflow logs the value that a task returns, so the link must be masked before the task has it."""
    endpoint = api.GenerateKycLink(workflow_id=hook.workflow(None))
    make: dict[str, Callable[[], api.KycLink]] = {
        "method": hook.generate_kyc_link,
        "call": lambda: hook.call(endpoint),
        "acall": lambda: asyncio.run(hook.acall(endpoint)),
    }
    made = make[mode]()
    assert made.url is not None
    assert redact(f"{made.link} {made.url}") == f"*** {made.url.replace(made.link, '***')}"


def test_a_verification_and_its_report(hook: FacekiHook, faceki_sandbox: FacekiSandbox) -> None:
    made = verified(hook)
    assert made.decision == "ACCEPTED"
    assert faceki_sandbox.ledger == {"accepted-1": 1}
    assert made.record.request_id
    with hook.get_pdf_report(made.record.request_id).file as report:
        assert report.read(5) == b"%PDF-"


def test_faces(hook: FacekiHook) -> None:
    verified(hook)
    (match,) = hook.match_face(SELFIE)
    assert match.record_identifier == "accepted-1"
    assert hook.analyze_face(SELFIE).min_age
    assert hook.check_image(SELFIE).quality


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda folder: image_bytes(), id="bytes"),
        pytest.param(lambda folder: folder / "selfie.jpg", id="path"),
        pytest.param(lambda folder: str(folder / "selfie.jpg"), id="path as text"),
        pytest.param(lambda folder: (folder / "selfie.jpg").as_uri(), id="URI"),
        pytest.param(lambda folder: api.Image.of_bytes("selfie", image_bytes()), id="Image"),
    ],
)
def test_an_image_in_every_shape(hook: FacekiHook, tmp_path: Path, source: Callable[[Path], Any]) -> None:
    write(tmp_path, "selfie.jpg", image_bytes())
    given = source(tmp_path)
    assert hook.image(given).size == len(image_bytes())
    assert hook.check_image(given).quality
    front = api.Document(api.Image.of_bytes("front", image_bytes()))
    for documents in ([given], [{"front": given}], [{"front": given, "back": given}], [front]):
        made = hook.perform_kyc_verification(
            selfie=given,
            documents=documents,
            record_identifier=f"accepted-{len(documents)}",
            workflow_id=WORKFLOW_PASSPORT,
        )
        assert made.decision


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(lambda hook: hook.fetch_records(), "exactly one", id="no filter"),
        pytest.param(lambda hook: hook.fetch_records(link="a b\0"), "link", id="no id"),
        pytest.param(lambda hook: hook.generate_kyc_link(redirect_url="x"), "redirect_url", id="redirect"),
        pytest.param(lambda hook: hook.match_face(b"text"), "selfie is not an image", id="no image"),
        pytest.param(lambda hook: hook.analyze_face("relative.jpg"), "selfie", id="relative path"),
        pytest.param(lambda hook: hook.check_image(b""), "image is empty", id="empty"),
        pytest.param(lambda hook: hook.get_pdf_report(""), "request_id", id="no request id"),
        pytest.param(
            lambda hook: hook.get_pdf_report("https://a.example/kycverify/l-1"), "is a URL", id="a page"
        ),
        pytest.param(
            lambda hook: hook.get_pdf_report({"link": "l-1"}), "output of a link task", id="an output"
        ),
        pytest.param(
            lambda hook: hook.perform_kyc_verification(
                selfie=SELFIE, documents=SELFIE, record_identifier="x"
            ),
            "documents must be a list",
            id="a lone document",
        ),
        pytest.param(
            lambda hook: hook.perform_kyc_verification(
                selfie=SELFIE, documents=[{"side": SELFIE}], record_identifier="x"
            ),
            r"documents\[0\] must be",
            id="a document without a front",
        ),
    ],
)
def test_an_argument_that_cannot_work_is_named_with_the_connection(
    hook: FacekiHook, call: Callable[[FacekiHook], object], expected: str
) -> None:
    with pytest.raises(api.ValidationError, match=expected) as caught:
        call(hook)
    assert caught.value.conn_id == "faceki_default"


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(copy.copy, id="copy"),
        pytest.param(lambda hook: pickle.loads(pickle.dumps(hook)), id="pickle"),  # noqa: S301 - trusted bytes
    ],
)
def test_a_used_hook_can_be_copied(
    hook: FacekiHook, faceki_sandbox: FacekiSandbox, copied: Callable[[FacekiHook], FacekiHook]
) -> None:
    assert hook.fetch_records(record_identifier="order-7") == ()
    again = copied(hook)
    assert again.faceki_conn_id == hook.faceki_conn_id
    assert again.fetch_records(record_identifier="order-7") == ()
    assert faceki_sandbox.client_secret.encode() not in pickle.dumps(hook)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda hook: hook.generate_kyc_link(workflow_id="unknown-1"), id="link"),
        pytest.param(lambda hook: hook.get_workflow_rules("unknown-1"), id="rules"),
        pytest.param(
            lambda hook: asyncio.run(hook.acall(api.GetWorkflowRules(workflow_id="unknown-1"))), id="async"
        ),
    ],
)
def test_the_error_names_a_misspelled_workflow(
    hook: FacekiHook, call: Callable[[FacekiHook], object]
) -> None:
    with pytest.raises(api.WorkflowError, match=r"^workflow 'unknown-1': FACEKI says: .* its id is wrong"):
        call(hook)


def test_rules_are_cached_also_where_there_are_none(
    hook: FacekiHook, faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = hook.workflow(None)
    assert hook.workflow_rules(workflow) is FacekiHook().workflow_rules(workflow)
    assert faceki_sandbox.counters.requests["rules"] == 1
    for _ in range(3):
        with pytest.raises(api.WorkflowError, match="workflow 'unknown-1'"):
            hook.workflow_rules("unknown-1")
    assert faceki_sandbox.counters.requests["rules"] == 2
    faceki_sandbox.add_fault("status", status=404, route="rules", count=100)
    for _ in range(3):
        assert hook.workflow_rules(WORKFLOW_PASSPORT) is None
    asked = faceki_sandbox.counters.requests["rules"]
    faceki_sandbox.clear_faults()
    monkeypatch.setattr("airflow_provider_faceki.hooks.workflow_rules.time.monotonic", lambda: 1e12)
    assert hook.workflow_rules(WORKFLOW_PASSPORT) is not None
    assert faceki_sandbox.counters.requests["rules"] == asked + 1


@pytest.mark.parametrize(
    "proxies",
    [
        pytest.param({}, id="empty object"),
        pytest.param("{}", id="empty object as text"),
        pytest.param({"https": ""}, id="empty address"),
        pytest.param({"http": None, "https": None}, id="null for each"),
    ],
)
def test_a_connection_can_say_no_proxy(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, proxies: object
) -> None:
    # The environment names a proxy port on which no server listens.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    connection = faceki_sandbox.connection(token_store="memory", max_attempts=1)
    connection["extra"] = {**connection["extra"], "proxies": proxies}  # type: ignore[dict-item]
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
    assert FacekiHook().fetch_records(record_identifier="order-7") == ()
    assert FacekiHook().settings.proxies == ()


@pytest.mark.parametrize(
    ("changes", "fault", "told"),
    [
        pytest.param({"host": "http://127.0.0.1:1"}, None, "no connection|refused", id="not reached"),
        pytest.param({"password": "not-this-one"}, None, "does not accept the client id", id="credentials"),
        pytest.param({}, {"kind": "status", "status": 404}, "does not know the token request", id="form"),
        pytest.param({}, {"kind": "truncated"}, "not JSON", id="not readable"),
    ],
)
def test_the_test_of_a_connection_names_the_reason(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    fault: dict[str, Any] | None,
    told: str,
) -> None:
    if fault:
        faceki_sandbox.add_fault(**fault, route="token", count=None)
    connection = {**faceki_sandbox.connection(token_store="memory"), **changes}
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
    works, text = FacekiHook().test_connection()
    assert not works
    assert re.search(told, text)


def test_the_test_of_a_connection_names_a_certificate_that_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with FakeServer(Authority.make(tmp_path).server_context()) as server:
        connection = {"conn_type": "faceki", "login": "i", "password": "invented", "host": server.url}
        monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
        works, text = FacekiHook().test_connection()
    assert not works
    assert "see the Connection's verify" in text
    assert server.received == []


def test_an_invalid_field_is_rejected_before_any_request(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = faceki_sandbox.connection(timeout="soon")
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
    with pytest.raises(api.ConfigurationError, match="found 'soon'"):
        FacekiHook().fetch_records(record_identifier="order-7")
    assert faceki_sandbox.counters.total == 0


@pytest.mark.parametrize("is_right", [True, False])
def test_the_test_of_a_connection_keeps_nothing_in_the_process(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, is_right: bool
) -> None:
    """Airflow's Test button uses a new random Connection id for each test, so cached objects would accumulate."""
    monkeypatch.setattr(hook_module, "_cached_connections", {})
    connection = faceki_sandbox.connection(token_store="memory")
    if not is_right:
        connection["password"] = "mistyped"
    for number in range(3):
        monkeypatch.setenv(f"AIRFLOW_CONN_TEST_{number}", json.dumps(connection))
        assert FacekiHook(f"test_{number}").test_connection()[0] is is_right
    assert hook_module._cached_connections == {}
