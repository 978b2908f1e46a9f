# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Faults: what goes wrong, on which route, how often. The first in the queue that matches is used up first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass, fields
from typing import Final

ANY_ROUTE: Final = "*"

# Kind -> the options that mean something to it.
KINDS: Final[dict[str, frozenset[str]]] = {
    "status": frozenset({"status", "retry_after", "processed"}),
    "code": frozenset({"code", "processed"}),
    "redirect": frozenset({"status", "location", "processed"}),
    "huge": frozenset({"size", "processed"}),
    "slow": frozenset({"delay", "processed"}),
    "drip": frozenset({"delay"}),
    "hang": frozenset({"delay"}),
    "truncated": frozenset(),
    "cut_off": frozenset(),
    "content_type": frozenset({"content_type"}),
    "reset": frozenset(),
    "reset_after_body": frozenset(),
    "process_then_reset": frozenset(),
    "reset_then_process": frozenset({"delay"}),
}
_REDIRECTS: Final = (301, 302, 303, 307, 308)


@dataclass
class Fault:
    """One fault. `route`, `record_identifier` (a prefix), `skip` and `count` say when; the rest says what.

    status            an HTTP `status` (502, 503, 504, 413 with an HTML page, the rest with JSON), `retry_after` as
                      seconds or as an HTTP date
    code              HTTP 200 with an error `code` in the envelope of the route
    redirect          `status` 302 unless said otherwise, to `location`
    huge              a JSON answer padded to `size` bytes
    slow              processing begins after `delay` seconds, whether the client still waits or not;
                      with `processed` it happens at once and only the answer is late
    drip              the right answer, its body spread over `delay` seconds
    hang              nothing is processed or answered; the connection is reset after `delay` seconds
    truncated         half of the right JSON under a Content-Length that fits the half
    cut_off           the Content-Length of the whole, half of the body, then the connection closes
    content_type      the right body labelled as `content_type`
    reset             connection reset before any of the body is read
    reset_after_body  connection reset when the body has been read; nothing is processed
    process_then_reset  processed (and billed), then reset instead of an answer
    reset_then_process  body read, connection reset, processed `delay` seconds later

    `processed`: the request is processed and billed before the wrong answer is given.
    """

    kind: str
    route: str = ANY_ROUTE
    record_identifier: str | None = None
    count: int | None = 1
    skip: int = 0
    status: int | None = None
    retry_after: float | str | None = None
    code: int = 500
    location: str = "/elsewhere"
    size: int = 8 * 1024 * 1024
    delay: float = 1.0
    content_type: str = "text/html; charset=utf-8"
    processed: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault kind: found {self.kind!r}, allowed is one of {', '.join(KINDS)}")
        self._check_options()
        self._check_types()
        if self.status is None:
            self.status = 302 if self.kind == "redirect" else 500
        if self.kind == "redirect" and self.status not in _REDIRECTS:
            raise ValueError(
                f"fault status: found {self.status}, allowed for a redirect is one of {_REDIRECTS}"
            )
        if self.kind == "reset" and self.record_identifier is not None:
            raise ValueError(
                "fault record_identifier: reset comes before the body is read; use reset_after_body"
            )

    def _check_options(self) -> None:
        for each in fields(self):
            if each.name in _WHEN or each.name in KINDS[self.kind]:
                continue
            if getattr(self, each.name) != each.default:
                raise ValueError(f"fault {each.name}: {self.kind} has no such option")

    def _check_types(self) -> None:
        _whole("count", self.count, 1, 1_000_000_000, none=True)
        _whole("skip", self.skip, 0, 1_000_000_000)
        _whole("status", self.status, 200, 599, none=True)
        _whole("code", self.code, 0, 99_999)
        _whole("size", self.size, 1, 1024**3)
        _seconds("delay", self.delay)
        for name in ("route", "location", "content_type"):
            _label(name, getattr(self, name))
        _choice("processed", self.processed)
        _prefix("record_identifier", self.record_identifier)
        _retry_after(self.retry_after)

    def matches(self, route: str, record_identifier: str) -> bool:
        """Whether it is meant for a request on this route, for this identifier."""
        if self.route not in (ANY_ROUTE, route):
            return False
        return self.record_identifier is None or record_identifier.startswith(self.record_identifier)

    @property
    def before_body(self) -> bool:
        return self.kind == "reset"


_WHEN: Final = frozenset({"kind", "route", "record_identifier", "count", "skip"})


def _whole(name: str, value: object, low: int, high: int, none: bool = False) -> None:
    if none and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"fault {name}: found {value!r}, allowed is a whole number from {low} to {high}")


def _seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise ValueError(f"fault {name}: found {value!r}, allowed is a number from 0 to 3600")


def _choice(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"fault {name}: found {value!r}, allowed is true or false")


def _prefix(name: str, value: object) -> None:
    if not isinstance(value, str | None):
        raise ValueError(
            f"fault {name}: found {value!r}, allowed is the beginning of an identifier, or nothing"
        )


def _retry_after(value: object) -> None:
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return
    if value is not None:
        raise ValueError(f"fault retry_after: found {value!r}, allowed is seconds or an HTTP date")


def _label(name: str, value: object) -> None:
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ValueError(f"fault {name}: found {value!r}, allowed is printable ASCII text")


def fault_from(document: Mapping[str, object]) -> Fault:
    """Read a fault that is written as a JSON object."""
    names = {each.name for each in fields(Fault)}
    for name in document:
        if name not in names:
            raise ValueError(f"fault {name!r}: no such option; there are {', '.join(sorted(names))}")
    if "kind" not in document:
        raise ValueError(f"fault kind: missing, allowed is one of {', '.join(KINDS)}")
    return Fault(**document)  # type: ignore[arg-type]  # each value is checked in __post_init__


class Faults:
    """The faults that wait for a request."""

    def __init__(self) -> None:
        self._queue: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._queue.append(copy(fault))  # a copy, since a fault is used up and may be added again

    def clear(self) -> None:
        self._queue.clear()

    def waiting(self) -> list[dict[str, object]]:
        return [asdict(fault) for fault in self._queue]

    def next_is_reset(self, route: str) -> bool:
        """Whether the first fault of a route is certainly a reset, before the body is read.

        One with a prefix cannot be judged before that.
        """
        for fault in self._queue:
            if fault.route in (ANY_ROUTE, route):
                return fault.before_body and fault.skip == 0
        return False

    def take(self, route: str, record_identifier: str) -> Fault | None:
        """Return the first that matches, and use it up once. One that still skips is passed over and counted down."""
        for fault in self._queue:
            if not fault.matches(route, record_identifier):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.count is not None:
                fault.count -= 1
                if fault.count == 0:
                    self._queue.remove(fault)
            return fault
        return None
