# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""HTTP server that simulates FACEKI. It needs less CPU time than each client, so it does not limit the benchmarks.

``python -m benchmarks.server CERTIFICATE KEY LATENCY`` listens on two loopback ports, one without and one with TLS,
and prints the port numbers as JSON. LATENCY is the waiting time before each answer in seconds. The server keeps
connections alive and counts requests. It ends when its standard input ends, so it does not outlive the process that
started it.

Its routes are:

====  =====================================  =======================================================
POST  ``/auth/api/generate-token``           a new token
GET   ``/api/v3/kyc_verification``           one record; an empty list if the query is for a ``link``
                                             or a ``record_identifier``; needs a valid token
POST  ``/api/v3/kyc_verification``           a decision; the images are discarded; needs a valid token
GET   ``/api/v3/workflows/rules``            the rules of a workflow, which require one identity card;
                                             needs a valid token
GET   ``/-/counters``                        the numbers of requests since the last reset
POST  ``/-/revoke``                          revokes all issued tokens
POST  ``/-/reset``                           sets the counters to 0 and revokes all issued tokens
====  =====================================  =======================================================
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Callable

from benchmarks.sample import RECORD

_OK = "200 OK"
_REFUSED = json.dumps({"status": False, "code": 401, "message": "UNAUTHORIZED"}).encode()
_RECORDS = json.dumps({"status": True, "code": 200, "message": "Success", "result": [RECORD]}).encode()


def _response(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _result(result: object) -> bytes:
    return _response(
        _OK, json.dumps({"status": True, "code": 200, "message": "OK", "result": result}).encode()
    )


_RECORDS_RESPONSE = _response(_OK, _RECORDS)
_BY_REQUEST = b"requestId="
_REQUEST_ID = str(RECORD["requestId"]).encode()


def _of(query: bytes) -> bytes:
    """Return a response with the sample record. The id of the record is replaced by the requested id.

    Our hook refuses a record whose id is not the requested id.
    """
    wanted = query.removeprefix(_BY_REQUEST)
    if wanted == _REQUEST_ID:
        return _RECORDS_RESPONSE
    return _response(_OK, _RECORDS.replace(_REQUEST_ID, wanted))


_DECISION_RESPONSE = _result(
    {"requestId": RECORD["requestId"], "decision": "ACCEPTED", "workflowId": "benchmark"}
)
_RULES_RESPONSE = _result({"workflowId": "benchmark", "documents": ["ID Card"], "document_optional": False})
_NOTHING_YET_RESPONSE = _response(_OK, b'{"status":true,"code":200,"message":"Success","result":[]}')
_TO_TOKENS = {
    b"GET /api/v3/kyc_verification": _RECORDS_RESPONSE,
    b"POST /api/v3/kyc_verification": _DECISION_RESPONSE,
    b"GET /api/v3/workflows/rules": _RULES_RESPONSE,
}
_REFUSED_RESPONSE = _response("401 Unauthorized", _REFUSED)
_UNKNOWN_RESPONSE = _response("404 Not Found", b"{}")


class Backend:
    """Creator of the responses of the simulated FACEKI server. It stores the valid tokens and counts the requests."""

    def __init__(self) -> None:
        self._issued = 0
        self.reset()

    def reset(self) -> None:
        """Set the counters to 0 and revoke all tokens. New tokens still differ from all earlier tokens."""
        self._good: set[bytes] = set()
        self._counters = {"tokens": 0, "calls": 0, "refused": 0}

    def answer(self, target: bytes, query: bytes, head: bytes) -> bytes:
        """Return the whole response to a request whose headers are ``head``."""
        if target in _TO_TOKENS:
            # If the query contains a link or a record identifier, the answer contains no record. FACEKI gives the same
            # answer as long as no verification with this link or record identifier exists.
            is_new = query.startswith((b"link=", b"record_identifier="))
            found = _NOTHING_YET_RESPONSE if is_new else _TO_TOKENS[target]
            return self._checked(head, _of(query) if query.startswith(_BY_REQUEST) else found)
        routes: dict[bytes, Callable[[], bytes]] = {
            b"POST /auth/api/generate-token": self._token,
            b"GET /-/counters": lambda: _response(_OK, json.dumps(self._counters).encode()),
            b"POST /-/revoke": lambda: self._done(self._good.clear),
            b"POST /-/reset": lambda: self._done(self.reset),
        }
        return routes.get(target, lambda: _UNKNOWN_RESPONSE)()

    def _done(self, action: Callable[[], object]) -> bytes:
        action()
        return _response(_OK, b"{}")

    def _token(self) -> bytes:
        self._issued += 1
        self._counters["tokens"] += 1
        value = f"benchmark-token-{self._issued:06d}-{'x' * 200}"
        self._good.add(value.encode())
        document = {"responseCode": 0, "data": {"access_token": value, "expires_in": 3600}}
        return _response(_OK, json.dumps(document).encode())

    def _checked(self, head: bytes, response: bytes) -> bytes:
        _, _, rest = head.partition(b"earer ")
        if rest.partition(b"\r\n")[0] in self._good:
            self._counters["calls"] += 1
            return response
        self._counters["refused"] += 1
        return _REFUSED_RESPONSE


class Connection(asyncio.Protocol):
    """One connection of a client. The bytes of a request body are only counted and not stored."""

    def __init__(self, backend: Backend, latency: float) -> None:
        self._backend = backend
        self._latency = latency
        self._head = b""
        self._body_left = 0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport of the connection, because the responses are written to it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Process received bytes. Clients wait for the response before the next request, so no queue is needed."""
        if not self._body_left:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            first, _, headers = head.partition(b"\r\n")
            target, _, query = first.rpartition(b" ")[0].partition(b"?")
            self._answer = self._backend.answer(target, query, headers + b"\r\n")
            self._body_left = _content_length(headers)
            data = body
        self._body_left -= len(data)
        if self._body_left <= 0:
            self._send()

    def _send(self) -> None:
        if self._latency:
            asyncio.get_running_loop().call_later(self._latency, self._transport.write, self._answer)
        else:
            self._transport.write(self._answer)


def _content_length(headers: bytes) -> int:
    _, found, rest = headers.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def _serve(certificate: str, key: str, latency: float) -> None:
    loop = asyncio.get_running_loop()
    backend = Backend()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    plain = await loop.create_server(lambda: Connection(backend, latency), "127.0.0.1", 0, backlog=1024)
    tls = await loop.create_server(
        lambda: Connection(backend, latency), "127.0.0.1", 0, backlog=1024, ssl=context
    )
    ports = {"plain": plain.sockets[0].getsockname()[1], "tls": tls.sockets[0].getsockname()[1]}
    print(json.dumps(ports), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))
