# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One try of a batch in a process of its own, which a test can kill or suspend at any time."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from airflow_provider_faceki.batch import lease, runner
from tests.batch.harness import BatchHarness
from tests.waiting import wait_until


def die(harness: BatchHarness, manifest: str, moment: Callable[[], object], **arguments: Any) -> None:
    """Start a try, and kill it when `moment()` is true."""
    with begun(harness, manifest, **arguments) as started:
        wait_until(lambda: moment() or started.exitcode is not None)
        assert started.exitcode is None, "the try was over before it could be killed"


@contextmanager
def begun(harness: BatchHarness, manifest: str, **arguments: Any) -> Iterator[BaseProcess]:
    """Start a try in a process of its own, and kill the process at the end if it is still running.

    :param harness: The files of the test.
    :param manifest: The manifest.
    :param arguments: Arguments of the operator, and two more: ``max_unchecked`` sets the maximum age of the last check
        of the lease, and ``flush_seconds`` sets how often the main thread writes the journal and checks the lease.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    connection = os.environ["AIRFLOW_CONN_FACEKI_DEFAULT"]
    started = context.Process(
        target=_run, args=(harness.folder, connection, manifest, arguments), daemon=True
    )
    started.start()
    try:
        yield started
    finally:
        started.kill()
        started.join()


def _run(folder: Path, connection: str, manifest: str, arguments: dict[str, Any]) -> None:
    os.environ["AIRFLOW_CONN_FACEKI_DEFAULT"] = connection
    lease.MAX_UNCHECKED_SECONDS = arguments.pop("max_unchecked", lease.MAX_UNCHECKED_SECONDS)
    runner.FLUSH_SECONDS = arguments.pop("flush_seconds", runner.FLUSH_SECONDS)
    # The child writes its output to a file. Otherwise its output would be mixed into the output of the test.
    with open(folder / "try.log", "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    BatchHarness(folder).verify(manifest, **arguments)
