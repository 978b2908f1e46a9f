# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fetch a record in three ways: with our hook, with Airflow's http provider, and with the library ``requests``."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import requests

from benchmarks.loopback import CLIENT_ID, CLIENT_SECRET, RECORDS_PATH, TOKEN_PATH, Loopback
from benchmarks.sample import REQUEST_ID

if TYPE_CHECKING:
    from airflow_provider_faceki.hooks.faceki import FacekiHook

CONN_ID = "benchmark_faceki"
HTTP_CONN_ID = "benchmark_http"

#: Timeout of a request in seconds. Without a timeout, the library ``requests`` waits without limit.
TIMEOUT = 30.0


def connect(server: Loopback, *, tls: bool = False, shared_file: bool = False, **extra: object) -> None:
    """Set environment variables with two Connections to ``server``: one for our hook, one for the http provider.

    :param server: The server.
    :param tls: Whether the Connections use TLS.
    :param shared_file: Whether our hook stores its token in a file that processes share.
    :param extra: Further fields of our Connection's ``extra``.
    """
    ours = server.connection(tls=tls, shared_file=shared_file, **extra)
    os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = ours
    os.environ[f"AIRFLOW_CONN_{HTTP_CONN_ID.upper()}"] = server.http_connection(tls=tls)


def hook() -> FacekiHook:
    """Return a new hook of our provider."""
    from airflow_provider_faceki.hooks.faceki import FacekiHook

    return FacekiHook(CONN_ID)


def fetch_with(one: FacekiHook) -> None:
    """Fetch a record through an existing hook of our provider."""
    from airflow_provider_faceki.api import FetchRecords

    assert one.call(FetchRecords(request_id=REQUEST_ID))[0].request_id == REQUEST_ID


def fetch_with_new_hook() -> None:
    """Fetch a record through a new hook of our provider."""
    fetch_with(hook())


def fetch_token(session: requests.Session | None = None, *, base_url: str) -> str:
    """Request a token as a script without this provider would do it, and return the token."""
    answer = (session or requests).post(
        base_url + TOKEN_PATH,
        json={"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET},
        timeout=TIMEOUT,
    )
    answer.raise_for_status()
    token: str = answer.json()["data"]["access_token"]
    return token


def bare_fetch(session: requests.Session, base_url: str, token: str) -> None:
    """Fetch a record with the library ``requests``, without our provider."""
    answer = session.get(
        base_url + RECORDS_PATH,
        params={"requestId": REQUEST_ID},
        headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
        timeout=TIMEOUT,
    )
    answer.raise_for_status()
    assert answer.json()["result"][0]["requestId"] == REQUEST_ID


def bare_fetch_with_connection(session: requests.Session, base_url: str, token: str) -> None:
    """Fetch the Connection from Airflow, as every new hook must do. Then fetch a record with the library ``requests``.

    This function does not use our provider.
    """
    from airflow.providers.common.compat.sdk import BaseHook

    BaseHook.get_connection(CONN_ID)
    bare_fetch(session, base_url, token)


def http_provider(method: str = "GET") -> Any:
    """Return a new hook of Airflow's http provider."""
    # The module is loaded by ``import_module``, because this project does not depend on the http provider. If the http
    # provider is not installed, the type checker reports an import statement as an error.
    http_hook = import_module("airflow.providers.http.hooks.http").HttpHook

    return http_hook(method=method, http_conn_id=HTTP_CONN_ID)


def http_provider_fetch(token: str, one: Any | None = None) -> None:
    """Fetch a record through the http provider.

    :param token: The access token.
    :param one: The hook of the http provider. If it is ``None``, a new hook is created.
    """
    answer = (one or http_provider()).run(
        RECORDS_PATH, data={"requestId": REQUEST_ID}, headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.json()["result"][0]["requestId"] == REQUEST_ID


def http_provider_task() -> None:
    """Request a token and fetch a record, as a task with the http provider would do it."""
    pair = f'{{"clientId": "{CLIENT_ID}", "clientSecret": "{CLIENT_SECRET}"}}'
    answer = http_provider("POST").run(TOKEN_PATH, data=pair, headers={"content-type": "application/json"})
    http_provider_fetch(answer.json()["data"]["access_token"])


def script_task(base_url: str) -> Callable[[], None]:
    """Return a function that requests a token and then fetches a record, both with the library ``requests``."""

    def run() -> None:
        session = requests.Session()
        bare_fetch(session, base_url, fetch_token(session, base_url=base_url))

    return run
