# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One try of a task in a process of its own, forked as Airflow's workers fork theirs, so that it can be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from airflow_provider_faceki import storage
from airflow_provider_faceki.api import client, token_file, verification
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from tests.billing.tries import KeptInFile, Tries

# Before any fork, for otherwise each try would spend most of its time on it: opening the first file loads Airflow's
# plugins.
LOADED = (client, token_file, verification)
storage.open_binary(__file__).close()

#: A try that hangs longer than this many seconds is a failure of its own.
LONGEST_TRY = 180.0


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

    def start(self, try_number: int) -> ForkServerProcess:
        """Start a try; it is at work when this returns."""
        started = forks().Process(target=_run, args=(self, try_number), daemon=True)
        started.start()
        deadline = time.monotonic() + LONGEST_TRY
        while not (self.folder / f"try-{try_number}.log").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
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


def _run(task: Task, try_number: int) -> None:
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
    result = tries.go()
    beside = task.folder / "result.new"
    beside.write_text(json.dumps(result))
    os.replace(beside, task.folder / "result.json")
