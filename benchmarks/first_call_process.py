# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Make the first call of a new process, and print the CPU time and the wall time that it needs.

The output is JSON with two numbers of seconds, ``cpu`` and ``wall``, and with ``stages``: the CPU time of each step of
the call, by the name of the step. For ``http provider``, only the step ``start of Python`` is measured.

The command is ``python -m benchmarks.first_call_process CANDIDATE URL CERTIFICATE TOKEN STARTED``:

- CANDIDATE is the program that makes the call: ``ours`` (our hook), ``bare requests`` (the library ``requests`` alone)
  or ``http provider`` (Airflow's http provider).
- URL is the address of the server. CERTIFICATE is the file with its TLS certificate. Only ``bare requests`` uses them.
  The other two read an Airflow Connection.
- TOKEN is a valid access token. Our hook does not use it, because it reads a token from the token store.
- STARTED is the value of ``time.monotonic()`` directly before this process was started.

Apart from the sample record, only modules of the standard library are imported at the top, because the time of all
other imports is measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from benchmarks.sample import REQUEST_ID

OURS, BASELINE, HTTP = "ours", "bare requests", "http provider"
#: The names of the steps of a call.
START, IMPORTS, CONNECTION, TOKEN, REQUEST = "start of Python", "imports", "Connection", "token", "request"
#: Modules that our hook imports only when it needs them. In the measurement of the steps, they are imported in the step
#: ``IMPORTS``. If a module is missing here, the time of its import is part of another step.
LATE_IMPORTS = (
    "api.client",
    "api.tokens.file",
    "api.endpoints.records",
    "connection.settings",
)
RECORDS_PATH = "/api/v3/kyc_verification"


def _import_airflow() -> tuple[float, float]:
    """Import the modules that Airflow imports in a task process before it runs the task's code.

    :returns: the CPU time and the wall time of the imports in seconds.
    """
    cpu, wall = time.process_time(), time.monotonic()
    import airflow.sdk
    import airflow.sdk.execution_time.task_runner
    from airflow.providers.common.compat.sdk import mask_secret  # noqa: F401 - our operators import it

    for base in ("BaseHook", "BaseOperator", "BaseSensorOperator"):
        getattr(airflow.sdk, base)
    return time.process_time() - cpu, time.monotonic() - wall


class Stages:
    """Stopwatch for the CPU time of the steps of a call. The first step ends when the object is created."""

    def __init__(self) -> None:
        self.seconds = {START: time.process_time()}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the step in the ``with`` block."""
        began = time.process_time()
        yield
        self.seconds[name] = time.process_time() - began


def _call_bare(stage: Stages, url: str, certificate: str, token: str) -> None:
    with stage(IMPORTS):
        import requests
    with stage(REQUEST):
        session = requests.Session()
        session.verify = certificate
        answer = session.get(
            url + RECORDS_PATH,
            params={"requestId": REQUEST_ID},
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            timeout=30,
        )
        answer.raise_for_status()
        assert answer.json()["result"][0]["requestId"] == REQUEST_ID


def _call_http_provider(token: str) -> None:
    http_hook = import_module("airflow.providers.http.hooks.http").HttpHook
    answer = http_hook(method="GET", http_conn_id="benchmark_http").run(
        RECORDS_PATH, data={"requestId": REQUEST_ID}, headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.json()["result"][0]["requestId"] == REQUEST_ID


def _call_ours(stage: Stages) -> None:
    # A task imports the hook and calls it once. This call does all these steps. They are called one by one here to
    # measure each of them.
    with stage(IMPORTS):
        from airflow_provider_faceki.api import FetchRecords
        from airflow_provider_faceki.hooks.faceki import FacekiHook

        for module in LATE_IMPORTS:
            import_module(f"airflow_provider_faceki.{module}")
    hook = FacekiHook("benchmark_faceki")
    with stage(CONNECTION):
        hook.get_conn()
    with stage(TOKEN):
        hook.get_access_token()
    with stage(REQUEST):
        records = hook.call(FetchRecords(request_id=REQUEST_ID))
        assert records[0].request_id == REQUEST_ID


def main() -> None:
    """Make one first call and print its CPU and wall time in seconds."""
    name, url, certificate, token, started = sys.argv[1:]
    stage = Stages()
    cpu, wall = (0.0, 0.0) if name == BASELINE else _import_airflow()
    if name == BASELINE:
        _call_bare(stage, url, certificate, token)
    elif name == HTTP:
        _call_http_provider(token)
    else:
        _call_ours(stage)
    took = {"cpu": time.process_time() - cpu, "wall": time.monotonic() - float(started) - wall}
    print(json.dumps({**took, "stages": stage.seconds}))
    # The process exits without Airflow's exit handlers. The result is already printed, and the time of these handlers
    # is not part of the measured call.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
