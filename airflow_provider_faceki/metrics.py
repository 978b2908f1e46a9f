# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""All metrics of the provider, which are sent to the backend that Airflow's section ``[metrics]`` configures.

``docs/metrics.md`` lists all metrics. Each part of a metric's name after the second dot is also sent as a tag. For
example, ``faceki.requests.FetchRecords.2xx`` has the tags ``endpoint=FetchRecords`` and ``status=2xx``.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from airflow.providers.common.compat.sdk import conf

log = logging.getLogger(__name__)

_BACKENDS = ("statsd_on", "statsd_datadog_enabled", "otel_on")
# Modules that contain a ``Stats`` object, depending on the version of Airflow. Airflow 3 has two such objects: one for
# tasks, and one for its own processes, such as the triggerer.
_MODULES = ("airflow.sdk.observability.stats", "airflow.observability.stats", "airflow.stats")
#: Names of the endpoints that FACEKI charges. The names are repeated here, because parsing a DAG must not import the
#: endpoint classes.
CHARGED = frozenset({"PerformKycVerification", "FaceMatch", "AnalyzeFace"})
_TOKEN = "AccessToken"  # noqa: S105 - this is the name of an endpoint


class RequestMetrics:
    """``RequestObserver`` that counts the requests, retries, fetched tokens and charged calls of a client."""

    def sent(self, endpoint: str, status: int | None) -> None:
        endpoint = endpoint or _TOKEN
        _incr("requests", endpoint=endpoint, status=f"{status // 100}xx" if status else "none")
        is_accepted = status is not None and status < 300
        if endpoint in CHARGED and (is_accepted or status is None):
            _incr("charged_calls", endpoint=endpoint)

    def retried(self, endpoint: str) -> None:
        _incr("retries", endpoint=endpoint or _TOKEN)

    def token_received(self) -> None:
        _incr("tokens_fetched")


@cache
def is_on() -> bool:
    """Return whether the administrator has enabled at least one backend for metrics."""
    return any(conf.getboolean("metrics", name, fallback=False) for name in _BACKENDS)


def count_decision(decision: object) -> None:
    """Count one decision.

    :param decision: The decision. A decision that FACEKI does not document is counted as ``OTHER``. Therefore the
        number of metrics stays small, and unexpected text, such as a person's name, does not reach the backend.
    """
    if is_on():
        from airflow_provider_faceki.api.models import OTHER, Decision

        word = str(decision)
        _incr("decisions", decision=word if word in Decision.__members__ else OTHER)


def count_row(outcome: str, line: Mapping[str, object]) -> None:
    """Count one row that a batch has finished: increment the counter of its outcome, and of its decision if it has one.

    :param outcome: ``succeeded`` or ``failed``.
    :param line: Line about the row in the batch's journal, which is the file that says which rows are finished.
    """
    _incr("batch_rows", outcome=outcome)
    # The line about a failed row, and the line about a row whose records a batch has only fetched, contain no field
    # ``decision``. So no decision is counted for these rows.
    if "decision" in line:
        count_decision(line["decision"])


def count_webhook_answer(status: int) -> None:
    """Count one answer of the API server to a webhook.

    :param status: HTTP status of the answer.
    """
    _incr("webhook_answers", status=str(status))


_open_waits = 0


def count_open_wait(change: int) -> None:
    """Change the number of running triggers of this process, and report the new number.

    All triggers of a process run on one event loop, so no lock is needed.

    :param change: 1 when a trigger starts, and -1 when it ends.
    """
    global _open_waits
    _open_waits += change
    _gauge("waits_open", _open_waits)


def report_circuit(conn_id: str, *, is_open: bool) -> None:
    """Report whether the circuit breaker of a Connection blocks its polls."""
    _gauge("circuit_open", int(is_open), connection=conn_id)


def _incr(name: str, **tags: str) -> None:
    """Increment a counter by 1.

    :param name: Name of the counter, without the prefix ``faceki.``.
    :param tags: Tags of the metric. Their values are also appended to the name, in the order of the arguments.
    """
    if is_on():
        _emit("incr", name, tags)


def _gauge(name: str, value: int, **tags: str) -> None:
    """Set a gauge to a value.

    :param name: Name of the gauge, without the prefix ``faceki.``.
    :param tags: Tags of the metric. Their values are also appended to the name, in the order of the arguments.
    """
    if is_on():
        _emit("gauge", name, tags, value)


def _emit(kind: str, name: str, tags: dict[str, str], *values: int) -> None:
    # Special characters in the values of tags are replaced, because they can have a special meaning in the
    # protocol of the metrics backend. A Connection id, for example, can contain such characters.
    tags = {tag: re.sub(r"[^A-Za-z0-9_-]", "_", value) for tag, value in tags.items()}
    try:
        getattr(_stats(), kind)(".".join(("faceki", name, *tags.values())), *values, tags=tags or None)
    except Exception as error:  # noqa: BLE001 - a backend can raise any error, and no such error must fail a paid call
        log.debug("A metric could not be sent: %s", type(error).__name__)


@cache
def _stats() -> Any:
    """Return the ``Stats`` object that Airflow has configured in this process.

    The modules in ``_MODULES`` can contain several ``Stats`` objects. If none of them is configured, return the last
    one that exists.
    """
    found = None
    for name in _MODULES:
        try:
            found = import_module(name).Stats
        except ImportError:
            continue
        module = sys.modules.get(getattr(found.incr, "__module__", ""))
        if getattr(module, "_factory", found) is not None:
            break
    return found
