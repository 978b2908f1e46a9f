# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fixtures: a sandbox, a manifest of fictional people with their images, and the operators without a DAG run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_faceki import storage_interface
from airflow_provider_faceki.batch import row_processor
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.batch.harness import BatchHarness

#: Connection settings for tests that cause faults. The timeouts are long, because a busy machine answers late.
FEW_ATTEMPTS: dict[str, object] = {"max_attempts": 2, "max_wait": 0.2, "timeout": 120, "upload_timeout": 120}

Connect = Callable[..., None]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses before a storage operation or a request is tried again; their number stays."""
    monkeypatch.setattr(storage_interface, "RETRY_PAUSES_SECONDS", (0.05, 0.1, 0.2, 0.4))
    monkeypatch.setattr(row_processor, "SEND_PAUSES_SECONDS", (0.05, 0.2))


@pytest.fixture
def connect(faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Function that creates the Connection ``faceki_default`` to the sandbox: `connect(max_concurrency=64)`."""

    def make(**extra: object) -> None:
        connection = faceki_sandbox.connection(**{**FEW_ATTEMPTS, **extra})
        monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))

    return make


@pytest.fixture
def faceki(faceki_sandbox: FacekiSandbox, connect: Connect) -> FacekiSandbox:
    """An empty sandbox, and the Connection ``faceki_default`` to it."""
    connect()
    return faceki_sandbox


@pytest.fixture
def harness(tmp_path: Path) -> BatchHarness:
    """The manifests, images and outputs of one test."""
    return BatchHarness(tmp_path)
