# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Time that the code for metrics costs if metrics are disabled: CPU time for one GET, time for one row of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from airflow_provider_faceki import metrics
from airflow_provider_faceki.api.protocol.envelope import Payload, read_payload
from airflow_provider_faceki.api.protocol.messages import HttpRequest
from airflow_provider_faceki.api.transport import drivers
from benchmarks import clients
from benchmarks.frame import Row, Target, measure_rounds
from benchmarks.loopback import loopback

OURS, BASELINE = "ours, metrics off", "ours without the code for metrics"
ROW, EMPTY = "counters of one row, metrics off", "two calls of an empty function"
#: Name of our drivers' method that contains the code for metrics. The benchmark replaces this method to measure a call
#: without metrics.
PATCHED = "_exchange"
ROUNDS, CALLS = 60, 8
COUNTER_CALLS = 1000


def measure(directory: Path) -> list[Row]:
    """Measure the time that the code for metrics needs while metrics are switched off.

    The first measurement compares a GET with this code and a GET without it. The second measurement compares two
    increases of a counter, which a batch makes for each row, with two calls of an empty function. Return the results as
    rows of the result table.
    """
    with loopback(directory) as server:
        clients.connect(server)
        hook = clients.hook()
        candidates: dict[str, Callable[[], object]] = {
            OURS: lambda: clients.fetch_with(hook),
            BASELINE: lambda: _without_metrics(lambda: clients.fetch_with(hook)),
        }
        calls = measure_rounds(candidates, rounds=ROUNDS, calls=CALLS, clock=time.thread_time)
    counters = measure_rounds({ROW: _count_row, EMPTY: _count_nothing}, rounds=ROUNDS, calls=COUNTER_CALLS)
    return [
        calls.row("GET, one hook, CPU", OURS, BASELINE, target=Target("ratio", "≤", 1.05)),
        counters.row("one batch row", ROW, EMPTY, unit="µs", target=Target("ours", "≤", 5.0)),
    ]


def _without_metrics(call: Callable[[], object]) -> None:
    exchange = drivers._Driver._exchange
    setattr(drivers._Driver, PATCHED, _send)
    try:
        call()
    finally:
        setattr(drivers._Driver, PATCHED, exchange)


def _send(driver: drivers._Driver, request: HttpRequest) -> Payload:
    return read_payload(driver._transport.send(request))


def _count_row() -> None:
    metrics._incr("batch_rows", outcome="succeeded")
    metrics._incr("decisions", decision="ACCEPTED")


def _nothing(_name: str, **_tags: str) -> None:
    """Do nothing, with the same parameters as ``metrics._incr``."""


def _count_nothing() -> None:
    _nothing("batch_rows", outcome="succeeded")
    _nothing("decisions", decision="ACCEPTED")
