# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fixtures: a sandbox that bills, a person's images, and a task instance with or without a state store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki import charged_call
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sandbox import FacekiSandbox, SandboxProcess
from tests.airflow.running import EXAMPLES, bundles
from tests.billing.image_files import write
from tests.billing.tries import FileStateStore, Tries

DAGS = Path(__file__).parent / "billed_dags"

#: Output paths that are never writable.
NOWHERE = [
    pytest.param("relative.json", "absolute path or the URI", id="relative"),
    pytest.param("nowhere://bucket/found.json", "no storage for", id="a scheme that nobody provides"),
    pytest.param("/folder/", "folder", id="a folder"),
]

#: Connection settings for tests that cause faults. The timeouts are long, because a busy machine answers late.
FEW_ATTEMPTS: dict[str, object] = {"max_attempts": 2, "max_wait": 0.3, "timeout": 120, "upload_timeout": 120}

Connect = Callable[..., None]


@pytest.fixture(autouse=True)
def short_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the waiting time of the fence, and let it accept a task state store that responds slowly.

    The fence prevents two executions of one task instance from sending a charged call twice. These tests run only one
    execution at a time, so the fence would only slow them down.
    """
    monkeypatch.setattr(charged_call, "MIN_FENCE_SECONDS", 0.0)
    monkeypatch.setattr(charged_call, "_MAX_WRITE_SECONDS", 600.0)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Function that creates the Connection ``faceki_default``: `connect(sandbox, timeout=1)`."""

    def make(sandbox: FacekiSandbox | SandboxProcess, **extra: object) -> None:
        connection = sandbox.connection(**{**FEW_ATTEMPTS, **extra})
        monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))

    return make


@pytest.fixture
def sandbox(faceki_sandbox: FacekiSandbox, connect: Connect) -> FacekiSandbox:
    """An empty sandbox, and the Connection ``faceki_default`` to it."""
    connect(faceki_sandbox)
    return faceki_sandbox


@pytest.fixture
def hook(sandbox: FacekiSandbox) -> FacekiHook:
    """The hook for the sandbox."""
    return FacekiHook()


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Any]:
    """Arguments of the operator: a selfie and an identity card."""
    return {
        "selfie": write(tmp_path, "selfie.jpg"),
        "documents": [{"front": write(tmp_path, "front.jpg"), "back": write(tmp_path, "back.jpg")}],
    }


@pytest.fixture(params=[pytest.param(True, id="store"), pytest.param(False, id="no store")])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FileStateStore | None:
    """The state store of the task instance as in Airflow 3.3, or None as in older versions."""
    return FileStateStore(tmp_path / "store.json") if request.param else None


Verify = Callable[..., Tries]


@pytest.fixture
def verify(images: dict[str, Any], store: FileStateStore | None, sandbox: FacekiSandbox) -> Verify:
    """Function that returns a task: `verify("accepted-1", resubmit_after=1)` has the identifier `accepted-1`."""

    def task(record_identifier: str | None = None, **arguments: Any) -> Tries:
        given = {"resubmit_after": 1.0, "lookup_timeout": 1.0, **images, **arguments}

        def make() -> FacekiKycVerificationOperator:
            return FacekiKycVerificationOperator(
                task_id="verify", record_identifier=record_identifier, **given
            )

        return Tries(make, store)

    return task


@pytest.fixture
def airflow(airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Airflow's database, with the example DAGs and the tests' own DAGs in its bundles."""
    for name, value in bundles(EXAMPLES, DAGS).items():
        monkeypatch.setenv(name, value)
    return airflow_db


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxProcess]:
    """A sandbox in a process of its own, for tasks that run in other processes."""
    with SandboxProcess() as process:
        yield process
