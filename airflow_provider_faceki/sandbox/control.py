# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The control API, with which tests and developers control a running sandbox, and a client of this API.

The API exchanges JSON under the path `/_sandbox/`. A GET only reads. Before each call, the persons are verified whose
links are as old as the setting `auto_answer`.

A foreign web page in the developer's browser must not control the sandbox. Therefore the sandbox accepts a POST only
with the content type `application/json`. Before a browser sends such a POST or a DELETE to another origin, the browser
sends a CORS preflight. The sandbox refuses the preflight, so the browser does not send the POST or DELETE.
"""

from __future__ import annotations

import http.client
import inspect
import ipaddress
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import asdict
from urllib.parse import urlencode, urlsplit

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.store import Refused
from airflow_provider_faceki.sandbox.backend.workflows import WORKFLOWS
from airflow_provider_faceki.sandbox.faults import fault_from

TIMEOUT_SECONDS = 10.0

Handler = Callable[[Backend, Mapping[str, object]], object]


def call_control(
    backend: Backend, method: str, name: str, document: Mapping[str, object]
) -> tuple[int, object]:
    """Execute a control call.

    :param name: the last part of the path, after `/_sandbox/`.
    :param document: the JSON body of a POST, or the query parameters of another method.
    :returns: the HTTP status and the JSON value of the response. The value of an error contains a message. An error has
        one of these statuses:

        - 404: The call does not exist. The message lists all calls.
        - 422: The input is invalid. The message says which input is allowed.
        - 409: The simulated FACEKI refuses the call, for example because there is no credit. The value also contains
          FACEKI's error code.
    """
    handler = CONTROL_CALLS.get((method, name))
    if handler is None:
        calls = ", ".join(f"{each} /_sandbox/{path}" for each, path in CONTROL_CALLS)
        return 404, {"error": f"no such control call; allowed is {calls}"}
    try:
        with backend.lock:
            backend.answer_due_links()
            return 200, handler(backend, document)
    except ValueError as wrong:
        return 422, {"error": str(wrong)}
    except Refused as refused:
        return 409, {"error": str(refused), "code": refused.code}


def _state(backend: Backend, document: Mapping[str, object]) -> object:
    now = backend.clock.now()
    return {
        "links": [{**asdict(link), "expired": link.expired(now)} for link in backend.store.links.values()],
        "decisions": backend.store.decisions(),
        "ledger": backend.ledger,
        "bills": [asdict(bill) for bill in backend.bills],
        "credit": backend.settings.credit,
        "tokens": backend.tokens.count(now),
        "now": now,
        "workflows": {key: list(workflow.documents) for key, workflow in WORKFLOWS.items()},
        "routes": list(backend.route_names),
    }


def _polls(backend: Backend, document: Mapping[str, object]) -> object:
    """Return the times at which clients searched for records, for example for the records of a given link.

    The query parameter `key` contains the search filter and its value, for example `link=<id>`.
    """
    name, _, value = _text(document, "key").partition("=")
    return list(backend.polls(**{name: value}))


def _add_fault(backend: Backend, document: Mapping[str, object]) -> object:
    backend.add_fault(fault_from(document))
    return backend.faults.waiting()


def _clear_faults(backend: Backend, document: Mapping[str, object]) -> object:
    backend.clear_faults()
    return []


def _change_settings(backend: Backend, document: Mapping[str, object]) -> object:
    backend.settings.update(document)
    return backend.settings.shown()


def _credit(backend: Backend, document: Mapping[str, object]) -> object:
    backend.settings.update(_only(document, "credit"))
    return {"credit": backend.settings.credit}


def _advance_clock(backend: Backend, document: Mapping[str, object]) -> object:
    backend.clock.advance(_only(document, "advance").get("advance"))
    backend.answer_due_links()
    return {"now": backend.clock.now()}


def _revoke_tokens(backend: Backend, document: Mapping[str, object]) -> object:
    _only(document)
    return {"revoked": backend.revoke_tokens()}


def _decide(backend: Backend, document: Mapping[str, object]) -> object:
    _only(document, "link", "request_id", "decision")
    return backend.decide(_text(document, "link", "request_id"), _text(document, "decision"))


def _action(action: Callable[..., object], *, without: tuple[str, ...] = ()) -> Handler:
    """Return a handler (a function that answers a call of the control API) for a method of the backend.

    The members of the JSON object in the call become the arguments of the method. For each parameter without a default,
    the JSON object must contain a text that is not empty.

    :param action: the method of the backend.
    :param without: names of parameters of the method that the control API does not accept.
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(action).parameters.items()
        if name not in ("self", *without)
    }
    required = [name for name, each in parameters.items() if each.default is inspect.Parameter.empty]

    def handler(backend: Backend, document: Mapping[str, object]) -> object:
        members = _only(document, *parameters)
        for name in required:
            _text(members, name)
        answer = action(backend, **members)
        return {} if answer is None else answer

    return handler


CONTROL_CALLS: dict[tuple[str, str], Handler] = {
    ("GET", "state"): _state,
    ("GET", "counters"): lambda backend, document: backend.counters.as_dict(),
    ("GET", "polls"): _polls,
    ("GET", "faults"): lambda backend, document: backend.faults.waiting(),
    ("POST", "faults"): _add_fault,
    ("DELETE", "faults"): _clear_faults,
    ("GET", "settings"): lambda backend, document: backend.settings.shown(),
    ("POST", "settings"): _change_settings,
    ("POST", "links"): _action(Backend.create_link),
    ("POST", "end-link"): _action(Backend.end_link),
    ("POST", "decide"): _decide,
    # The control API does not accept the parameter `selfie` of `add_record`, because JSON cannot represent bytes.
    ("POST", "records"): _action(Backend.add_record, without=("selfie",)),
    ("POST", "revoke-tokens"): _revoke_tokens,
    ("POST", "clock"): _advance_clock,
    ("POST", "credit"): _credit,
    ("POST", "fake-webhook"): _action(Backend.send_fake_webhook),
    ("POST", "reset"): _action(Backend.reset),
}


def _text(document: Mapping[str, object], *names: str) -> str:
    """Search a JSON object for several members, and return the first value that is not empty.

    :param names: the names of the members, in the order of the search.
    :raises ValueError: if all these members are missing or empty, or if the found value is not a text.
    """
    for name in names:
        if value := document.get(name):
            if not isinstance(value, str):
                raise ValueError(f"{name}: found {type(value).__name__}, allowed is text")
            return value
    raise ValueError(f"{' or '.join(names)}: missing or empty, allowed is text")


def _only(document: Mapping[str, object], *names: str) -> dict[str, object]:
    for name in document:
        if name not in names:
            raise ValueError(f"{name!r}: no such member; allowed is {', '.join(names) or 'none'}")
    return dict(document)


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or the name localhost.

    For every other host name, return false, because DNS can resolve the name to any address.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ControlError(Exception):
    """The sandbox refused a control call. The message contains the reason."""


class ControlClient:
    """A client of the control API. If the sandbox refuses a call, a method raises `ControlError`.

    Example: `ControlClient(url).post("faults", kind="status", status=503)`

    :param url: the URL that `faceki-sandbox` printed.
    :param cafile: the path of the certificate of a sandbox with TLS. If None, the certificates of the system
        are used.
    """

    def __init__(self, url: str, cafile: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url: allowed is the http or https URL that faceki-sandbox printed")
        self._host, self._port = parts.hostname, parts.port
        self._context = ssl.create_default_context(cafile=cafile) if parts.scheme == "https" else None

    def get(self, name: str, **query: str) -> object:
        return self._call("GET", f"{name}?{urlencode(query)}" if query else name, None)

    def post(self, name: str, **document: object) -> object:
        return self._call("POST", name, document)

    def delete(self, name: str) -> object:
        return self._call("DELETE", name, None)

    def _call(self, method: str, name: str, document: Mapping[str, object] | None) -> object:
        connection = self._connect()
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, f"/_sandbox/{name}", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer: object = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ControlError(
                answer.get("error", response.reason) if isinstance(answer, dict) else response.reason
            )
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=TIMEOUT_SECONDS, context=self._context
        )
