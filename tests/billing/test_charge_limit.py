# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The Connection's limit of charged calls holds for each try of a task, for each way to send a charged call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.hooks import faceki as faceki_hook
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.metrics import CHARGED
from airflow_provider_faceki.operators.images import FacekiFaceMatchOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import TaskInstance, context
from tests.batch.harness import BatchHarness, names, once
from tests.billing.conftest import Connect

LIMIT = 2
REACHED = rf"max_charged_calls={LIMIT} is reached: this try made {LIMIT} calls"


@pytest.fixture
def limited(faceki_sandbox: FacekiSandbox, connect: Connect) -> FacekiSandbox:
    connect(faceki_sandbox, max_charged_calls=LIMIT)
    return faceki_sandbox


def verify(hook: FacekiHook, images: dict[str, Any], number: int) -> object:
    return hook.perform_kyc_verification(record_identifier=f"accepted-{number}", **images)


def match(hook: FacekiHook, images: dict[str, Any], _: int) -> object:
    return hook.match_face(images["selfie"])


def analyze(hook: FacekiHook, images: dict[str, Any], _: int) -> object:
    return hook.analyze_face(images["selfie"])


def analyze_async(hook: FacekiHook, images: dict[str, Any], _: int) -> object:
    return asyncio.run(hook.acall(api.AnalyzeFace(hook.image(images["selfie"]))))


def analyze_by_client(hook: FacekiHook, images: dict[str, Any], _: int) -> object:
    return hook.get_conn().call(api.AnalyzeFace(hook.image(images["selfie"])))


def raw(hook: FacekiHook, images: dict[str, Any], _: int) -> object:
    call = api.RawCall(
        "POST", "/api/v3/kyc_verification/analyzeFace", files={"selfie": hook.image(images["selfie"])}
    )
    return hook.call(call)


def begin_try(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a try with this number run now, as far as the hook can see."""
    running = context(ti=TaskInstance(try_number=number))
    monkeypatch.setattr(faceki_hook, "get_current_context", lambda: running)


Send = Callable[[FacekiHook, dict[str, Any], int], object]


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(verify, id="verification"),
        pytest.param(match, id="face match"),
        pytest.param(analyze, id="face analysis"),
        pytest.param(analyze_async, id="on an event loop"),
        pytest.param(analyze_by_client, id="the client itself"),
        pytest.param(raw, id="a call without an endpoint class"),
    ],
)
def test_every_client_and_mode_enforces_the_charge_limit(
    limited: FacekiSandbox, images: dict[str, Any], send: Send
) -> None:
    for number in range(LIMIT):
        send(FacekiHook(), images, number)
    sent = limited.counters.total
    with pytest.raises(api.ChargeLimitError, match=REACHED):
        send(FacekiHook(), images, LIMIT)
    assert limited.counters.total == sent


def test_free_calls_are_allowed_after_the_charge_limit(
    limited: FacekiSandbox, images: dict[str, Any]
) -> None:
    hook = FacekiHook()
    for number in range(LIMIT):
        verify(hook, images, number)
    assert len(hook.fetch_records(record_identifier="accepted-0")) == 1
    hook.generate_kyc_link()
    hook.check_image(images["selfie"])


@pytest.mark.parametrize(
    ("fault", "is_counted"),
    [
        pytest.param({"name": "code", "code": 5003}, False, id="no credit"),
        pytest.param({"name": "process_then_reset"}, True, id="the answer is lost"),
    ],
)
def test_what_is_counted(
    limited: FacekiSandbox, images: dict[str, Any], fault: dict[str, Any], is_counted: bool
) -> None:
    hook = FacekiHook()
    limited.add_fault(fault.pop("name"), route="analyze_face", **fault)
    with suppress(api.QuotaError, api.ResponseLostError, api.OutcomeUnknownError):
        analyze(hook, images, 0)
    for number in range(LIMIT - is_counted):
        analyze(hook, images, number)
    with pytest.raises(api.ChargeLimitError):
        analyze(hook, images, LIMIT)


def test_each_try_has_the_whole_limit(
    limited: FacekiSandbox, images: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        begin_try(number, monkeypatch)
        for _ in range(LIMIT):
            analyze(FacekiHook(), images, 0)
        with pytest.raises(api.ChargeLimitError):
            analyze(FacekiHook(), images, 0)


def test_an_operator_fails_without_a_retry(limited: FacekiSandbox, images: dict[str, Any]) -> None:
    def run() -> object:
        return FacekiFaceMatchOperator(task_id="match", selfie=images["selfie"]).execute(context())

    for _ in range(LIMIT):
        run()
    with pytest.raises(AirflowFailException, match=rf"ChargeLimitError: {REACHED}.*'faceki_default'"):
        run()


def test_a_batch_leaves_rows_open_and_goes_on(
    faceki_sandbox: FacekiSandbox, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(faceki_sandbox, max_charged_calls=7)
    harness, everybody = BatchHarness(tmp_path), names(20)
    manifest = harness.everybody(*everybody)
    arguments = {"batch_id": "b", "concurrency": 5}
    with pytest.raises(AirflowFailException, match=r"this try made 7 calls.*; 13 of 20 rows are left"):
        harness.verify(manifest, **arguments)
    assert len(harness.results()) == faceki_sandbox.counters.bills == 7
    assert harness.errors() == {}
    # A further try with a higher limit verifies the rows that are left.
    begin_try(2, monkeypatch)
    connect(faceki_sandbox, max_charged_calls=13)
    assert harness.verify(manifest, **arguments)["decisions"] == {"ACCEPTED": 20}
    assert faceki_sandbox.ledger == once(everybody)


def test_the_metric_counts_the_same_calls() -> None:
    charged = {name for name in dir(api) if getattr(getattr(api, name), "is_charged", None) is True}
    assert charged == CHARGED
