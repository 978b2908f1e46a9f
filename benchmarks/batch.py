# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Throughput, memory and overhead of a batch task.

The throughput is compared with the theoretical maximum of a server that needs 300 ms for each verification. Each
throughput and each memory is measured in a fresh process (``benchmarks/batching.py``). The time of a batch includes
everything from reading the manifest to writing the last result. It also includes the token request and the request for
the rules of the workflow. These two requests take as long as two rows. To make their share of the time small, a batch
whose throughput has a target has 50 seconds of work.

The memory is measured while the batch fetches records from a server without latency. The time of one row is compared
with the time of one mapped task, in a complete Airflow installation (``benchmarks/scheduled.py``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import clients, scheduled
from benchmarks.batching import FETCH, LOOKED_UP, POOL, VERIFY, WORKFLOW, write_manifest
from benchmarks.frame import Row, Target, counted
from benchmarks.loopback import Loopback, loopback

LATENCY = 0.3
#: Size of a test image in bytes. uploads.py measures the upload of larger images.
IMAGE = 20_000
#: For each number of requests in flight: the lowest throughput with which the benchmark passes. It is a share of the
#: theoretical maximum.
SHARES = {16: 0.95, 64: 0.93}
#: Two durations of a batch in seconds. The number of rows is chosen so that the batch takes this time if each row needs
#: one request and the throughput is maximal. ``LONG`` is for the batch of our provider whose throughput has a target.
#: ``SHORT`` is for the other batches of verifications. A shorter measurement is sufficient for them.
LONG, SHORT = 50, 20
FEW, MANY = 1_000, 100_000
PEOPLE = 200

_Found = Mapping[str, float]


def measure(directory: Path) -> list[Row]:
    """Measure throughput, memory and time per row of a batch task, and return the rows of the result table."""
    rows: list[Row] = []
    with loopback(directory, LATENCY) as server:
        clients.connect(server, tls=True, workflow_id=WORKFLOW, max_concurrency=max(SHARES))
        alone = _work_off(server, POOL, directory, 1, SHORT)
        for concurrency in SHARES:
            rows += _throughput(server, directory, concurrency, alone)
    with loopback(directory) as server:
        clients.connect(server, tls=True)
        rows += _memory(server, directory)
        rows += _overhead(server, directory)
    return rows


def _throughput(server: Loopback, directory: Path, concurrency: int, alone: _Found) -> list[Row]:
    pool = _work_off(server, POOL, directory, concurrency, SHORT)
    ours = _work_off(server, VERIFY, directory, concurrency, LONG)
    name, cpu = f"verified, {concurrency} at once, 300 ms server", f"CPU a row, {concurrency} at once"
    target = Target("ratio", "≥", SHARES[concurrency])
    looked_up = _work_off(server, LOOKED_UP, directory, concurrency, SHORT)
    mine = _rate(ours)
    return [
        counted(name, "the ideal", concurrency / LATENCY, mine, "a second", target),
        counted(name, "requests in a pool of threads", _rate(pool), mine, "a second", None),
        counted(name, "requests, one after the other", _rate(alone), mine, "a second", None),
        counted(
            f"{name}, each looked up first",
            "the ideal of two requests a row",
            concurrency / LATENCY / 2,
            _rate(looked_up),
            "a second",
            None,
        ),
        counted(cpu, "requests in a pool of threads", _cpu(pool), _cpu(ours), "ms", None),
    ]


def _rate(found: _Found) -> float:
    return found["rows"] / found["seconds"]


def _cpu(found: _Found) -> float:
    return 1e3 * found["cpu"] / found["rows"]


def _memory(server: Loopback, directory: Path) -> list[Row]:
    few, many = (
        run_process(server, FETCH, write_manifest(directory / f"fetch-{rows}", rows), 16)
        for rows in (FEW, MANY)
    )
    growth, growth_of_few = many["peak"] - many["before"], few["peak"] - few["before"]
    remark = f"growth: {growth:.1f} MiB; with 1 000 records: {growth_of_few:.1f} MiB"
    target = Target("ratio", "≤", 1.1)
    name = "memory at its largest, 100 000 records fetched"
    return [counted(name, "1 000 records", few["peak"], many["peak"], "MiB", target, remark)]


def _overhead(server: Loopback, directory: Path) -> list[Row]:
    people = write_manifest(directory / "people", PEOPLE, os.urandom(IMAGE))
    took = scheduled.seconds(server, people, directory / "whole-airflow")
    one, mapped = (took[dag_id] / PEOPLE for dag_id in (scheduled.ONE_TASK, scheduled.MAPPED_TASKS))
    return [counted("a row of 200 in a whole Airflow", "a mapped task each", mapped, one, "s", None)]


def _work_off(server: Loopback, name: str, directory: Path, concurrency: int, seconds: int) -> _Found:
    """Run a batch as a separate operating system process, and return the measurements that it prints.

    The number of rows is chosen so that the batch takes ``seconds`` at the maximal throughput.
    """
    rows = concurrency * round(seconds / LATENCY)
    folder = write_manifest(directory / f"{name}-{concurrency}", rows, os.urandom(IMAGE))
    return run_process(server, name, folder, concurrency)


def run_process(server: Loopback, name: str, folder: Path, concurrency: int, place: str = "") -> _Found:
    """Run ``benchmarks/batching.py`` for one manifest as a separate operating system process.

    Return the measurements that ``benchmarks/batching.py`` prints.

    :param server: The server that receives the requests.
    :param name: The kind of batch: ``verify``, ``looked_up``, ``fetch`` or ``pool``; see ``benchmarks/batching.py``.
    :param folder: Folder with the images.
    :param concurrency: Number of requests in flight.
    :param place: Folder or URI with the manifest. The output is written there too. Default: ``folder``. ``pool`` does
        not use it.
    """
    arguments = (
        name,
        str(folder),
        str(concurrency),
        server.tls,
        str(server.certificate),
        place or str(folder),
    )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.batching", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        timeout=1500,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
