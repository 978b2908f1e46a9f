# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One try of a batch in a process of its own, so that it can be killed (``kill -9``) at any moment."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.batch.people import People
from tests.waiting import wait_until


def die(people: People, manifest: str, moment: Callable[[], object], **arguments: Any) -> None:
    """Begin a try and kill it when its moment has come."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    connection = os.environ["AIRFLOW_CONN_FACEKI_DEFAULT"]
    started = context.Process(target=_run, args=(people.folder, connection, manifest, arguments), daemon=True)
    started.start()
    try:
        wait_until(lambda: moment() or started.exitcode is not None)
        assert started.exitcode is None, "the try was over before it could be killed"
    finally:
        started.kill()
        started.join()


def _run(folder: Path, connection: str, manifest: str, arguments: dict[str, Any]) -> None:
    os.environ["AIRFLOW_CONN_FACEKI_DEFAULT"] = connection
    # What it prints would drown the test's own words.
    with open(folder / "try.log", "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    People(folder).verify(manifest, **arguments)
