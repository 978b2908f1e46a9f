# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How do I steer a sandbox that runs elsewhere? A thin client of its control API; standard library only."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

CONTROL_SECONDS = 10.0


class ControlError(Exception):
    """The sandbox did not do it, and says why."""


class ControlClient:
    """`ControlClient(url).post("faults", kind="status", status=503)`; `cafile` for a sandbox with TLS."""

    def __init__(self, url: str, cafile: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url: allowed is the http or https URL that faceki-sandbox printed")
        self._host, self._port = parts.hostname, parts.port
        self._context = ssl.create_default_context(cafile=cafile) if parts.scheme == "https" else None

    def get(self, name: str, **query: str) -> object:
        return self._ask("GET", f"{name}?{urlencode(query)}" if query else name, None)

    def post(self, name: str, **document: object) -> object:
        return self._ask("POST", name, document)

    def delete(self, name: str) -> object:
        return self._ask("DELETE", name, None)

    def _ask(self, method: str, name: str, document: Mapping[str, object] | None) -> object:
        line = self._line()
        try:
            body = None if document is None else json.dumps(document)
            line.request(method, f"/_sandbox/{name}", body, {"Content-Type": "application/json"})
            answer = line.getresponse()
            said: object = json.loads(answer.read())
        finally:
            line.close()
        if answer.status != 200:
            raise ControlError(said.get("error", answer.reason) if isinstance(said, dict) else answer.reason)
        return said

    def _line(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=CONTROL_SECONDS)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=CONTROL_SECONDS, context=self._context
        )
