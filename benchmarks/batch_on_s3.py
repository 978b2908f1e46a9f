# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Time, memory and requests of a batch with manifest, journal and output on an S3 server.

The same batch is also measured on local files. The ratio is the throughput on S3 divided by the throughput on local
files. The S3 server (``benchmarks/s3.py``) runs on the same machine and is slower than a real S3 service (assumption),
so this ratio is a lower bound. The S3 server counts requests, because a real S3 service charges for requests.

Two servers simulate FACEKI. The server for verifications needs 300 ms for an answer. The server for records has no
latency. Each batch runs in a fresh process (``benchmarks/batching.py``). The environment variable
``FACEKI_BENCHMARK_SHARE`` makes the batches smaller. With the value 0.1, a batch has a tenth of the rows.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import clients
from benchmarks.batch import IMAGE, LATENCY, run_process
from benchmarks.batching import FETCH, MANIFEST, VERIFY, WORKFLOW, write_manifest
from benchmarks.frame import Row, Target, counted
from benchmarks.loopback import Loopback, loopback
from benchmarks.s3 import BUCKET, CONN_ID, JOURNAL, S3, s3

CONCURRENCY = 16
FETCHED, VERIFIED = 100_000, 20_000
#: Size of the small batch as a share of the large batch. The comparison of the two batches shows whether the number of
#: S3 requests and the memory grow with the number of rows.
SMALL = 0.1
PARTS = 3_500
MIN_RATIO = 0.9
#: Maximal memory of the large batch, divided by the memory of the small batch. The benchmark of a batch on local files
#: (``benchmarks/batch.py``) has the same limit.
MAX_GROWTH = 1.1
#: Maximal number of S3 requests for one row. S3 charges about 0.005 USD for 1,000 requests that write or list.
MAX_REQUESTS_PER_ROW = 0.1

_Found = Mapping[str, float]


def measure(directory: Path) -> list[Row]:
    """Measure batches on S3 and on local files, and the listing of a folder. Return the rows of the result table."""
    share = float(os.environ.get("FACEKI_BENCHMARK_SHARE", "1"))
    with s3() as store:
        with loopback(directory) as server:
            clients.connect(server, tls=True)
            rows = _compare(server, store, directory, FETCH, int(FETCHED * share))
        with loopback(directory, LATENCY) as server:
            clients.connect(server, tls=True, workflow_id=WORKFLOW, max_concurrency=CONCURRENCY)
            rows += _compare(server, store, directory, VERIFY, int(VERIFIED * share))
        return [*rows, *_listing(store)]


def _compare(server: Loopback, store: S3, directory: Path, name: str, rows: int) -> list[Row]:
    local, _ = _work_off(server, store, directory, name, rows, on_s3=False)
    small, few = _work_off(server, store, directory, name, round(rows * SMALL), on_s3=True)
    large, many = _work_off(server, store, directory, name, rows, on_s3=True)
    what = f"{_spaced(rows)} rows, {name} on S3"
    per_row, per_row_small = many.total() / rows, few.total() / round(rows * SMALL)
    journal = Counter({kind: number for kind, number in many.items() if kind.endswith(JOURNAL)})
    # The start of a task needs some seconds and some tens of requests. If ``FACEKI_BENCHMARK_SHARE`` makes the batches
    # smaller, the start is a large part of the result. Therefore only batches of the full size have targets.
    is_full = rows in (FETCHED, VERIFIED)
    ratio = Target("ratio", "≥", MIN_RATIO) if is_full else None
    flat = Target("ratio", "≤", MAX_GROWTH) if is_full else None
    few_requests = Target("ours", "≤", MAX_REQUESTS_PER_ROW) if is_full else None
    return [
        counted(what, "local files", _rate(local), _rate(large), "a second", ratio),
        counted(f"CPU a row, {name} on S3", "local files", _cpu(local), _cpu(large), "ms", None),
        counted(f"memory, {what}", "a tenth of the rows", small["peak"], large["peak"], "MiB", flat),
        counted(
            f"requests a row, {what}",
            "a tenth of the rows",
            per_row_small,
            per_row,
            "requests",
            few_requests,
            f"{_by_method(many)}; a tenth: {_by_method(few)}",
        ),
        counted(
            f"journal requests a row, {what}",
            "all requests",
            per_row,
            journal.total() / rows,
            "requests",
            None,
            _by_method(journal),
        ),
    ]


def _by_method(requests: Counter[str]) -> str:
    """Return a text with the number of requests for each method.

    Requests for the journal are counted together with the other requests.
    """
    counts = Counter[str]()
    for kind, number in requests.items():
        counts[kind.removesuffix(JOURNAL)] += number
    return ", ".join(f"{number} {method}" for method, number in counts.most_common())


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _rate(found: _Found) -> float:
    return found["rows"] / found["seconds"]


def _cpu(found: _Found) -> float:
    return 1e3 * found["cpu"] / found["rows"]


def _work_off(
    server: Loopback, store: S3, directory: Path, name: str, rows: int, *, on_s3: bool
) -> tuple[_Found, Counter[str]]:
    """Process a batch with ``rows`` rows. Return the measurements and the number of S3 requests by kind."""
    folder = write_manifest(directory / f"{name}-{rows}-{on_s3}", rows, os.urandom(IMAGE))
    place = str(folder)
    if on_s3:
        place = f"s3://{CONN_ID}@{BUCKET}/{folder.name}"
        store.client().upload_file(str(folder / MANIFEST), BUCKET, f"{folder.name}/{MANIFEST}")
    store.counters()
    found = run_process(server, name, folder, CONCURRENCY, place)
    return found, store.counters()


def _listing(store: S3) -> list[Row]:
    """Count the S3 requests for listing a folder with thousands of files.

    The count is compared with the smallest possible number of requests. One response of S3 contains at most 1,000
    names.
    """
    from airflow_provider_faceki import storage

    client: Any = store.client()
    for number in range(PARTS):
        client.put_object(
            Bucket=BUCKET, Key=f"parts/part-{number:06d}.ndjson", Body=json.dumps(number).encode()
        )
    store.counters()
    began = time.perf_counter()
    found = storage.list_files(f"s3://{CONN_ID}@{BUCKET}/parts", None)
    seconds = time.perf_counter() - began
    assert len(found) == PARTS
    pages = -(-PARTS // 1_000)
    requests = store.counters().total()
    target = Target("ratio", "≤", 2.0)
    name = f"requests to list a folder with {_spaced(PARTS)} parts"
    return [counted(name, "its pages", pages, requests, "requests", target, f"{seconds:.1f} s")]
