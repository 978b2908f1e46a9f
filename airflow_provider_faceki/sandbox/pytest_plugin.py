# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How do I test my own DAGs? Ask for the fixture `faceki_sandbox`; the Connection `faceki_default` is then there.

pytest imports this module in every run of everybody who has the provider, so it imports next to nothing itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox.server import FacekiSandbox


class _Session:
    """One server for the whole run, started by the first test that wants it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._sandbox: FacekiSandbox | None = None
        self._tests = 0

    def fresh(self) -> FacekiSandbox:
        if self._sandbox is None:
            from airflow_provider_faceki.sandbox.server import FacekiSandbox

            self._sandbox = self._stack.enter_context(FacekiSandbox())
        self._sandbox.reset()
        self._tests += 1
        # New credentials for each test: no token that an earlier one left in a store fits.
        self._sandbox.settings.client_id = f"{self._sandbox.client_id}-{self._tests}"
        return self._sandbox


@pytest.fixture(scope="session")
def _faceki_sandbox_session() -> Iterator[_Session]:
    with ExitStack() as stack:
        yield _Session(stack)


@pytest.fixture
def faceki_sandbox(
    request: pytest.FixtureRequest, _faceki_sandbox_session: _Session, monkeypatch: pytest.MonkeyPatch
) -> FacekiSandbox:
    """An empty FACEKI on loopback, and `AIRFLOW_CONN_FACEKI_DEFAULT` that leads to it.

    Its parameter is the name of a dialect, or a mapping of settings:
    `@pytest.mark.parametrize("faceki_sandbox", ["records-nested"], indirect=True)`.
    """
    from airflow_provider_faceki.sandbox.__main__ import missing_packages

    if problem := missing_packages():
        pytest.fail(f"faceki_sandbox: {problem}", pytrace=False)
    sandbox = _faceki_sandbox_session.fresh()
    settings = getattr(request, "param", {})
    sandbox.settings.update({"dialect": settings} if isinstance(settings, str) else settings)
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(sandbox.connection()))
    return sandbox
