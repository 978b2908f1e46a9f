# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""In a triggerer, masking calls the supervisor only from the event loop that reads the supervisor's responses.

Airflow 3.0 and 3.1 mask by a blocking call, which returns to the event loop through asgiref. `make test` does not run
these versions. It runs 2.11, for which the provider masks in the same way. A function in this test imitates the
blocking call.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from asgiref.sync import async_to_sync

from airflow_provider_faceki.hooks import faceki
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.running import AIRFLOW_VERSION


@pytest.mark.skipif(
    AIRFLOW_VERSION >= (3, 3), reason="Airflow has a way of its own for event loops from 3.3 on"
)
def test_the_token_is_masked_on_the_waiting_event_loop(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: dict[str, asyncio.AbstractEventLoop] = {}

    async def ask_the_supervisor(value: str) -> None:
        masked[value] = asyncio.get_running_loop()

    monkeypatch.setattr(faceki, "mask_secret", lambda value: async_to_sync(ask_the_supervisor)(value))
    connection = faceki_sandbox.connection(token_store="memory")
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_MASKED", json.dumps(connection))

    async def ask() -> asyncio.AbstractEventLoop:
        client = await faceki.FacekiHook("faceki_masked").aget_conn()
        tokens.append(await client.get_access_token())
        return asyncio.get_running_loop()

    tokens: list[str] = []
    loop = asyncio.run(ask())
    assert {str(connection["password"]), *tokens} <= masked.keys()
    assert set(masked.values()) == {loop}
