# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One try of a task in a process of its own, forked as Airflow's workers fork, so that a test can kill it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
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
from airflow_provider_faceki.api.uploads import Multipart
from airflow_provider_faceki.charged_call import ChargedCallState
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from tests.billing.tries import FileStateStore, Tries

# Each try is a fork of this process. These objects are created before the first fork, because they load modules: the
# first opened file loads Airflow's plugins, and the first operator and the first Connection load many of Airflow's
# models. Otherwise each try would load them again, which would take most of its time.
LOADED = (client, token_file, verification, Connection(conn_id="first", conn_type="faceki"))
FacekiKycVerificationOperator(task_id="first", selfie="/", documents=["/"])
storage.open_binary(__file__).close()

#: If a try takes longer than this number of seconds, the test fails.
LONGEST_TRY = 180.0


@dataclass(frozen=True)
class Death:
    """The point at which a try is killed, defined by its progress and not by a clock, because a busy machine is slow.

    :param entering: Kill the try when it enters the function with this qualified name.
    :param chunk: Kill the try when it sends this chunk of the call, counted from one.
    :param calls: Kill the try at this function call, counted from the beginning of the try.
    :param sending: Kill the try this number of seconds after it began to send.
    """

    entering: str = ""
    chunk: int | None = None
    calls: int | None = None
    sending: float | None = None


@dataclass(frozen=True)
class Task:
    """A verification in a process that can be killed at any time."""

    folder: Path
    connection: str
    arguments: Mapping[str, Any]
    remembers: bool

    @property
    def store(self) -> FileStateStore:
        return FileStateStore(self.folder / "store.json")

    @property
    def result(self) -> dict[str, Any] | None:
        """The result of the task, or None if the task has not finished."""
        place = self.folder / "result.json"
        return json.loads(place.read_text()) if place.exists() else None

    @property
    def died_at(self) -> float | None:
        """The Unix time at which the latest try killed itself. If no try has killed itself, the value is ``None``."""
        place = self.folder / "died"
        return float(place.read_text()) if place.exists() else None

    @property
    def calls(self) -> int:
        """Number of function calls in a complete, undisturbed try."""
        return int((self.folder / "calls").read_text())

    def start(self, try_number: int, death: Death | None = None) -> ForkServerProcess:
        """Start a try."""
        started = forks().Process(target=_run, args=(self, try_number, death), daemon=True)
        started.start()
        return started

    def go_on(self, try_number: int) -> None:
        """Run a try to its end."""
        started = self.start(try_number)
        started.join(LONGEST_TRY)
        if started.exitcode is None:
            started.kill()
            raise TimeoutError("a try hangs")


def forks() -> multiprocessing.context.ForkServerContext:
    """Return a server process that has imported everything, and that forks a process for each try."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class KillingProfiler:
    """Profiler function that counts the calls of a try, and kills its process (``kill -9``) at the defined point.

    :param folder: The folder to which the time of the kill is written.
    """

    def __init__(self, death: Death, folder: Path) -> None:
        self.death = death
        self.folder = folder
        self.calls = 0
        self.chunks = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event not in ("call", "c_call"):
            return
        self.calls += 1
        if self.calls == self.death.calls:
            self._die()
        if event == "c_call":
            return
        # Python reports a call of this generator function each time the next chunk is requested.
        if frame.f_code is Multipart.chunks.__code__:
            self.chunks += 1
            if self.chunks == self.death.chunk:
                self._die()
        if frame.f_code.co_qualname == self.death.entering:
            self._die()
        if self.death.sending is not None and frame.f_code is ChargedCallState.send.__code__:
            threading.Timer(self.death.sending, self._die).start()

    def _die(self) -> None:
        (self.folder / "died").write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)


def _run(task: Task, try_number: int, death: Death | None) -> None:
    os.environ["AIRFLOW_CONN_FACEKI_DEFAULT"] = task.connection
    tries = Tries(
        lambda: FacekiKycVerificationOperator(task_id="verify", **task.arguments),
        task.store if task.remembers else None,
    )
    tries.ti.try_number = try_number - 1
    # The output of this process goes to a file. Otherwise it would be mixed with the output of the test.
    with open(task.folder / f"try-{try_number}.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    profiler = KillingProfiler(death or Death(), task.folder)
    sys.setprofile(profiler)
    result = tries.go()
    sys.setprofile(None)
    (task.folder / "calls").write_text(str(profiler.calls))
    beside = task.folder / "result.new"
    beside.write_text(json.dumps(result))
    os.replace(beside, task.folder / "result.json")
