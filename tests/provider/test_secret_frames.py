# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The local variables of raised errors show no secret.

``airflow dags test`` with ``DEV=1``, Sentry and rich print the local variables of every frame of a traceback.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.billing.image_files import image_bytes

CANARIES = {
    "password": "canary-client-secret-1",
    "webhook_token": "canary-webhook-token-" + "w" * 32,
    "webhook_hmac_secret": "canary-hmac-secret-3",
    "pii_hash_secret": "canary-pii-hash-secret-" + "p" * 32,
}
PROXY = "canary-proxy-password"


def frames_of(error: BaseException) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the location and the local variables of every frame of an error and of its causes."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        waiting += [found.__cause__, found.__context__]
        tb: TracebackType | None = found.__traceback__
        while tb is not None:
            code = tb.tb_frame.f_code
            yield f"{code.co_filename}:{tb.tb_lineno} {code.co_qualname}", dict(tb.tb_frame.f_locals)
            tb = tb.tb_next


def shown_in(error: BaseException, secrets: list[str]) -> list[str]:
    """Return the locations whose local variables show a secret, except the frames of this file."""
    return [
        f"{place}: {name}"
        for place, variables in frames_of(error)
        if __file__ not in place
        for name, value in variables.items()
        if any(secret in repr(value) for secret in secrets)
    ]


def test_the_search_finds_what_is_there() -> None:
    def fail() -> None:
        password = CANARIES["password"]  # noqa: F841 - the search reads it from the frame
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert any("password" in variables for _, variables in frames_of(caught.value))


def connect(monkeypatch: pytest.MonkeyPatch, sandbox: FacekiSandbox, **changes: Any) -> list[str]:
    """Create the Connection and return its secrets."""
    connection: dict[str, Any] = sandbox.connection(
        token_store="memory",
        max_attempts=1,
        timeout=120,
        webhook_hmac_header="X-Signature",
        **{name: value for name, value in CANARIES.items() if name != "password"},
    )
    connection["extra"] = {**connection["extra"], **changes.pop("extra", {})}
    connection |= changes
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
    return [*CANARIES.values(), str(connection["password"]), PROXY]


def verify(hook: FacekiHook) -> object:
    return hook.perform_kyc_verification(
        selfie=image_bytes(), documents=[image_bytes(seed=2)], record_identifier="accepted-1"
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"extra": {"timeout": "soon"}}, id="a wrong field"),
        pytest.param({"extra": {"timeout": CANARIES["webhook_token"]}}, id="a secret in the wrong field"),
        pytest.param({"extra": {"proxies": {"https": f"ftp://u:{PROXY}@p"}}}, id="a wrong proxy"),
        pytest.param(
            {"extra": {"proxies": {"http": f"http://u:{PROXY}\uff0f@p:3128"}}}, id="a wrong proxy password"
        ),
        pytest.param({"conn_type": "smtp"}, id="another service's"),
        pytest.param({"login": None}, id="no login"),
        pytest.param({"password": CANARIES["password"]}, id="a wrong secret"),
        pytest.param(
            {"password": "canary-client-secret-1ü", "extra": {"auth_flow": "access_token_headers"}},
            id="a secret that no header carries",
        ),
        *[
            pytest.param(
                {"password": CANARIES["password"], "extra": {"auth_flow": flow.value}},
                id=f"a wrong secret, {flow.value}",
            )
            for flow in api.AuthFlow
        ],
        pytest.param({"host": "http://127.0.0.1:9"}, id="nobody listens"),
        pytest.param({"extra": {"proxies": {"http": f"http://u:{PROXY}@127.0.0.1:9"}}}, id="a dead proxy"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda hook: hook.fetch_records(record_identifier="x"), id="sync"),
        pytest.param(
            lambda hook: asyncio.run(hook.acall(api.FetchRecords(record_identifier="x"))), id="async"
        ),
        pytest.param(verify, id="paid"),
    ],
)
def test_no_frame_of_an_error_shows_a_secret(
    faceki_sandbox: FacekiSandbox,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    use: Callable[[FacekiHook], object],
) -> None:
    secrets = connect(monkeypatch, faceki_sandbox, **changes)
    with pytest.raises(api.FacekiError) as caught:
        use(FacekiHook())
    assert shown_in(caught.value, secrets) == []


@pytest.mark.parametrize(
    ("fault", "route"),
    [
        pytest.param({"kind": "reset"}, "token", id="token answer lost"),
        pytest.param({"kind": "status", "status": 500}, "token", id="token failure"),
        pytest.param({"kind": "redirect", "status": 302}, "token", id="token redirected"),
        pytest.param({"kind": "truncated"}, "token", id="token answer cut"),
        pytest.param({"kind": "status", "status": 401}, "records", id="a dead token"),
        pytest.param({"kind": "truncated"}, "records", id="answer cut"),
        pytest.param({"kind": "content_type"}, "records", id="no JSON"),
    ],
)
def test_no_frame_of_a_failed_call_shows_a_secret(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any], route: str
) -> None:
    secrets = connect(monkeypatch, faceki_sandbox)
    faceki_sandbox.add_fault(**fault, route=route, count=10)
    hook = FacekiHook()
    found: list[str] = []
    for _ in range(2):
        try:
            hook.fetch_records(record_identifier="x")
        except api.FacekiError as error:
            found += shown_in(error, secrets)
    assert found == []
