# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One try of a task in a process of its own, forked as Airflow's workers fork theirs, so that it can be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import Any

from airflow.providers.common.compat.sdk import Connection

from airflow_provider_faceki import storage
from airflow_provider_faceki.api import client
from airflow_provider_faceki.api.endpoints import verification
from airflow_provider_faceki.api.tokens import file as token_file
from airflow_provider_faceki.charged_call import ChargedCallState
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from tests.billing.tries import KeptInFile, Tries

# Before any fork, for otherwise each try would spend most of its time on it: a first file loads Airflow's plugins, a
# first operator and a first Connection much of its models.
LOADED = (client, token_file, verification, Connection(conn_id="first", conn_type="faceki"))
FacekiKycVerificationOperator(task_id="first", selfie="/", documents=["/"])
storage.open_binary(__file__).close()

#: A try that hangs longer than this many seconds is a failure of its own.
LONGEST_TRY = 180.0


@dataclass(frozen=True)
class Death:
    """When a try is to die, told by how far it is and not by a clock: a busy machine is slow.

    :param calls: At this call of a function, counted from the beginning of the try.
    :param sending: This many seconds after it began to send.
    """

    calls: int | None = None
    sending: float | None = None


@dataclass(frozen=True)
class Task:
    """A verification by a process that may be killed at any moment."""

    folder: Path
    connection: str
    arguments: Mapping[str, Any]
    remembers: bool

    @property
    def store(self) -> KeptInFile:
        return KeptInFile(self.folder / "store.json")

    @property
    def result(self) -> dict[str, Any] | None:
        """What the task returned, once it has."""
        place = self.folder / "result.json"
        return json.loads(place.read_text()) if place.exists() else None

    @property
    def calls(self) -> int:
        """How many calls of functions a try takes that nobody disturbs."""
        return int((self.folder / "calls").read_text())

    def start(self, try_number: int, death: Death | None = None) -> ForkServerProcess:
        """Start a try."""
        started = forks().Process(target=_run, args=(self, try_number, death), daemon=True)
        started.start()
        return started

    def go_on(self, try_number: int) -> None:
        """Let a try come to its end."""
        started = self.start(try_number)
        started.join(LONGEST_TRY)
        if started.exitcode is None:
            started.kill()
            raise TimeoutError("a try hangs")


def forks() -> multiprocessing.context.ForkServerContext:
    """A server that has imported everything and forks off a process for each try."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class Clockwork:
    """Counts the calls of a try, and ends it (``kill -9``) when its time has come."""

    def __init__(self, death: Death) -> None:
        self.death = death
        self.calls = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event not in ("call", "c_call"):
            return
        self.calls += 1
        if self.calls == self.death.calls:
            _die()
        if (
            self.death.sending is not None
            and event == "call"
            and frame.f_code is ChargedCallState.send.__code__
        ):
            threading.Timer(self.death.sending, _die).start()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _run(task: Task, try_number: int, death: Death | None) -> None:
    os.environ["AIRFLOW_CONN_FACEKI_DEFAULT"] = task.connection
    tries = Tries(
        lambda: FacekiKycVerificationOperator(task_id="verify", **task.arguments),
        task.store if task.remembers else None,
    )
    tries.ti.try_number = try_number - 1
    # What it prints would drown the test's own words.
    with open(task.folder / f"try-{try_number}.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    clockwork = Clockwork(death or Death())
    sys.setprofile(clockwork)
    result = tries.go()
    sys.setprofile(None)
    (task.folder / "calls").write_text(str(clockwork.calls))
    beside = task.folder / "result.new"
    beside.write_text(json.dumps(result))
    os.replace(beside, task.folder / "result.json")
