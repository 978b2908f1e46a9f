# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Faults: errors that a test queues and that the sandbox then injects into its answers.

At most one fault is applied to a request: the first fault in the queue that matches the request. A fault with `skip=3`
does not match its first three requests. One of the later faults in the queue can match them.

`replacement` and `corrupted` compute the answers of faults. `app.py` applies a fault to a request: it waits, resets the
connection or sends the answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass, fields, replace
from typing import Final

from airflow_provider_faceki.sandbox.messages import Envelope, Response, error, gateway_page, json_response
from airflow_provider_faceki.sandbox.settings import checked, checked_field, number, one_of, or_none

ANY_ROUTE: Final = "*"

_COMMON_OPTIONS: Final = frozenset({"route", "record_identifier", "count", "skip"})
# Maps each kind of fault to its own options. Each kind also has the options in `_COMMON_OPTIONS`. Only `reset` does not
# accept the option `record_identifier`.
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
GATEWAY_TITLES = {
    413: "Request Entity Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Time-out",
}


def _prefix(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("the beginning of an identifier")
    return value


def _retry_after(value: object) -> object:
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return value
    # `math.isfinite` is not used, because it raises an exception for an integer that is too large for a float. The
    # comparison with `math.inf` works for an integer of any size.
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        return value
    raise ValueError("seconds or an HTTP date")


def _label(value: object) -> object:
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ValueError("printable ASCII text")
    return value


@dataclass
class Fault:
    """One error that the sandbox injects into its answers.

    The kinds of faults:

    - `status`: The answer has the HTTP status `status`. If `retry_after` is set, the answer has the header
      `Retry-After`. The body is an HTML page for 413, 502, 503 and 504, and JSON for every other status.
    - `code`: The answer is HTTP 200 with the error `code`, in the envelope (outer JSON object) of the route's errors.
    - `redirect`: The answer is a redirect to `location` with the HTTP status `status` (default: 302).
    - `huge`: The answer is JSON with a text of `size` bytes.
    - `slow`: The request is processed after `delay` seconds, even if the client has disconnected. With `processed`, the
      request is processed at once and only the answer is delayed.
    - `drip`: The answer is correct, but its body is sent in pieces over `delay` seconds.
    - `hang`: The request is not processed and not answered. The connection is reset after `delay` seconds.
    - `truncated`: The body is the first half of the correct body, with a Content-Length that matches this half.
    - `cut_off`: The Content-Length matches the complete body, but the connection closes after half of the body.
    - `content_type`: The body is correct, but the header `Content-Type` has the value `content_type`.
    - `reset`: The connection is reset before the body of the request is read. If an earlier fault in the queue depends
      on the record identifier, the body is read first, because the body can contain the record identifier.
    - `reset_after_body`: The connection is reset after the body of the request is read. The request is not processed.
    - `process_then_reset`: The request is processed and billed. Then the connection is reset without an answer.
    - `reset_then_process`: The body of the request is read and the connection is reset. The request is processed
      `delay` seconds later.

    :param kind: the kind of the fault.
    :param route: the name of the route to which the fault applies. `*` means every route.
    :param record_identifier: a prefix. The fault applies only to requests with a record identifier that begins with
        this prefix. If None, the fault applies to all requests. The kind `reset` does not have this option.
    :param count: the number of requests to which the fault applies. If None, the number is not limited.
    :param skip: the number of matching requests that the fault ignores before it applies.
    :param status: the HTTP status of the kinds `status` (default: 500) and `redirect` (default: 302).
    :param retry_after: the value of the header `Retry-After`, in seconds or as an HTTP date.
    :param code: the FACEKI error code of the kind `code`.
    :param location: the URL to which the kind `redirect` redirects.
    :param size: the size in bytes of the text in the answer of the kind `huge`.
    :param delay: the delay in seconds of the kinds `slow`, `drip`, `hang` and `reset_then_process`.
    :param content_type: the header `Content-Type` of the kind `content_type`.
    :param processed: whether the request is processed and billed before the faulty answer is sent. Only the kinds
        `status`, `code`, `redirect`, `huge` and `slow` have this option.
    """

    kind: str
    route: str = checked_field(ANY_ROUTE, _label)
    record_identifier: str | None = checked_field(None, or_none(_prefix))
    count: int | None = checked_field(1, or_none(number(1, 1_000_000_000, whole=True)))
    skip: int = checked_field(0, number(0, 1_000_000_000, whole=True))
    status: int | None = checked_field(None, or_none(number(200, 599, whole=True)))
    retry_after: float | str | None = checked_field(None, or_none(_retry_after))
    code: int = checked_field(500, number(0, 99_999, whole=True))
    location: str = checked_field("/elsewhere", _label)
    size: int = checked_field(8 * 1024 * 1024, number(1, 1024**3, whole=True))
    delay: float = checked_field(1.0, number(0, 3600))
    content_type: str = checked_field("text/html; charset=utf-8", _label)
    processed: bool = checked_field(False, one_of(True, False))

    def __post_init__(self) -> None:
        if self.kind not in list(KINDS):  # A lookup in a dict raises TypeError if `kind` is a list.
            raise ValueError(f"fault kind: found {self.kind!r}, allowed is one of {', '.join(KINDS)}")
        self._check_options()
        for each in fields(self):
            if check := each.metadata.get("check"):
                checked(f"fault {each.name}", getattr(self, each.name), check)
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
        options = _COMMON_OPTIONS | KINDS[self.kind]
        for each in fields(self):
            if each.name != "kind" and each.name not in options and getattr(self, each.name) != each.default:
                raise ValueError(
                    f"fault {each.name}: no such option; allowed for {self.kind} is {', '.join(sorted(options))}"
                )

    def matches(self, route: str, record_identifier: str) -> bool:
        """Return whether the fault applies to a request with this route and this record identifier."""
        if self.route not in (ANY_ROUTE, route):
            return False
        return self.record_identifier is None or record_identifier.startswith(self.record_identifier)


def replacement(fault: Fault, envelope: Envelope) -> Response:
    """Return the response that replaces the answer of the route because of a fault."""
    headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after}"}
    status = fault.status or 500
    if fault.kind == "code":
        return error(envelope, fault.code)
    if fault.kind == "redirect":
        return gateway_page(status, "Found", {"Location": fault.location})
    if fault.kind == "huge":
        return json_response({"status": True, "code": 200, "message": "x" * fault.size, "result": []})
    if status in GATEWAY_TITLES:
        return gateway_page(status, GATEWAY_TITLES[status], headers)
    return replace(error(envelope, 500 if status >= 500 else 400, status), headers=headers)


def corrupted(fault: Fault, response: Response) -> Response:
    """Return the correct answer of the route with the change of the fault, `truncated` or `content_type`."""
    if fault.kind == "truncated":
        return replace(response, body=response.body[: len(response.body) // 2])
    return replace(response, content_type=fault.content_type)


def fault_from(document: Mapping[str, object]) -> Fault:
    """Create a fault from a JSON object.

    :raises ValueError: if the kind is missing or unknown, if an option does not belong to the kind, or if a value is
        invalid.
    """
    names = {each.name for each in fields(Fault)}
    for name in document:
        if name not in names:
            raise ValueError(f"fault {name!r}: no such option; there are {', '.join(sorted(names))}")
    if "kind" not in document:
        raise ValueError(f"fault kind: missing, allowed is one of {', '.join(KINDS)}")
    return Fault(**document)  # type: ignore[arg-type]  # __post_init__ checks each value.


class Faults:
    """The queue of the faults that the sandbox still has to inject."""

    def __init__(self) -> None:
        self._queue: list[Fault] = []

    def add(self, fault: Fault) -> None:
        # The queue stores a copy of the fault. The method `take` changes only the copy, so the caller can add the same
        # object again.
        self._queue.append(copy(fault))

    def clear(self) -> None:
        self._queue.clear()

    def waiting(self) -> list[dict[str, object]]:
        return [asdict(fault) for fault in self._queue]

    def next_is_reset(self, route: str) -> bool:
        """Return True if the connection must be reset before the body of a request to this route is read.

        The faults for this route are examined in the order of the queue. A fault without the option `record_identifier`
        and with a `skip` above 0 is passed over. The next fault decides:

        - A fault of the kind `reset`, which never has the option `record_identifier`: the result is True.
        - Any other fault, or no fault: the result is False. The sandbox then reads the body, which can contain the
          record identifier, and calls `take`.
        """
        for fault in self._queue:
            if fault.route in (ANY_ROUTE, route) and (fault.record_identifier is not None or not fault.skip):
                return fault.kind == "reset"
        return False

    def take(self, route: str, record_identifier: str) -> Fault | None:
        """Return the fault that applies to a request. If no fault applies, return None.

        The queue is searched from its beginning for faults that match the request:

        - If the `skip` of a fault is not 0, `skip` is decreased by 1, and the search continues.
        - If the `skip` of a fault is 0, `count` is decreased by 1, and the fault is returned. If `count` reaches 0, the
          fault is removed from the queue. A `count` of None is not decreased.
        """
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
