# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How are connections made, and for how long does anything wait on one? One TLS context for all of a transport; and
what is to be sent is sent within the patience for it, or not to its end.

urllib3 sends with the patience for connecting, a few seconds, and knows no bound on sending as a whole.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from airflow_provider_faceki.api.errors import ConfigurationError

#: Bytes that the system may hold for a connection besides what is on its way. It goes on to send them when the
#: patience has ended, or the process; by default that is up to 4 MiB, for which a slow uplink takes minutes.
MAX_UNSENT_BYTES = 256 * 1024
#: The option that says so; ``None`` where the system has none.
NOTSENT_LOWAT_OPTION: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class SendTimeout(Exception):
    """The request was not sent to its end, so whoever got a part of it cannot act on it."""


@dataclass
class SendState:
    """How far a request has got.

    :param limit: Seconds that it has to be sent.
    :param begun: Whether a byte of it may have left. What urllib3 raises does not tell: a connection that breaks
        when all has been sent may pass for one that a proxy has never made.
    """

    limit: float
    begun: bool = False


_this_thread = threading.local()


@contextmanager
def sending(sent: SendState) -> Iterator[None]:
    """Let this thread's request be sent within its limit, say how far it got, and keep it out of urllib3's logs."""
    _this_thread.sending = sent
    try:
        yield
    finally:
        _this_thread.sending = None


class _DeadlineReader(io.RawIOBase):
    """What comes in on a connection: as much silence is borne as its timeout says, and from the first byte on as much
    time again for all the rest, however it drips.
    """

    def __init__(self, connection: Any) -> None:
        self._socket = connection
        self._raw = connection.makefile("rb", buffering=0)
        self._limit = connection.gettimeout()
        self._until: float | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._limit if self._until is None else self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        size: int | None = self._raw.readinto(buffer)
        if self._until is None:
            self._until = time.monotonic() + self._limit
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(HTTPResponse):
    """An answer, or what a proxy says to ``CONNECT``."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_DeadlineReader(sock))


class _DeadlineConnection(HTTPConnection):
    """Mixed into the connections of urllib3, whichever kind they are."""

    response_class = _DeadlineResponse
    _until: float | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            # With its own limit: what is sent while a connection is made is not the request.
            self.connect()
        self._until = time.monotonic() + _this_thread.sending.limit
        try:
            super().request(*args, **kwargs)
        finally:
            self._until = None

    def send(self, data: Any) -> None:
        if self._until is None:
            return super().send(data)
        left = self._until - time.monotonic()
        if left <= 0:
            raise SendTimeout
        _this_thread.sending.begun = True
        self.sock.settimeout(left)
        try:
            super().send(data)
        except TimeoutError:
            # A socket says so only of bytes that it did not take.
            raise SendTimeout from None


class SharedTLSAdapter(HTTPAdapter):
    """Makes every connection with one TLS context; ``requests`` would load the CA bundle (25 ms) for each.

    :param context: That context.
    :param connections: How many are kept.
    """

    def __init__(self, context: ssl.SSLContext, connections: int) -> None:
        self._making = threading.Lock()
        options = list(HTTPConnection.default_socket_options)
        if NOTSENT_LOWAT_OPTION is not None:
            options.append((socket.IPPROTO_TCP, NOTSENT_LOWAT_OPTION, MAX_UNSENT_BYTES))
        self._pool_options: dict[str, Any] = {"ssl_context": context, "socket_options": options}
        super().__init__(pool_maxsize=connections)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= self._pool_options
        super().init_poolmanager(*args, **kwargs)
        _install_deadlines(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        with self._making:
            if proxy in self.proxy_manager:
                return super().proxy_manager_for(proxy)
            manager = super().proxy_manager_for(proxy, **self._pool_options, **kwargs)
            _install_deadlines(manager)
            return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: object, cert: object = None
    ) -> Any:
        parts = urlsplit(request.url or "")
        return {"scheme": parts.scheme, "host": parts.hostname, "port": parts.port}, {}

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Leave the connection to the context."""


def _install_deadlines(manager: Any) -> None:
    # Derived from what is there, for a SOCKS proxy has kinds of its own.
    manager.pool_classes_by_scheme = {
        scheme: type(
            pool.__name__,
            (pool,),
            {"ConnectionCls": type("_C", (_DeadlineConnection, pool.ConnectionCls), {})},
        )
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """Return the context that checks certificates as a transport's ``verify`` says.

    :raises ConfigurationError: it names a bundle that cannot be read.
    """
    bundle = verify if isinstance(verify, str) else None
    if verify is True:
        # The variables that requests honours, read here because its own look comes after the context is made.
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
    is_directory = bundle is not None and os.path.isdir(bundle)
    try:
        context = ssl.create_default_context(
            cafile=None if is_directory else bundle, capath=bundle if is_directory else None
        )
    except (OSError, ssl.SSLError):
        raise ConfigurationError(f"verify: {bundle!r} is not a readable bundle of CA certificates") from None
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _not_ours(_record: logging.LogRecord) -> bool:
    return getattr(_this_thread, "sending", None) is None


# urllib3 logs a request's path with its query, which may be a link or, in the legacy token form, the secret
# itself: each one at level DEBUG, and at WARNING the whole URL where an answer's headers are odd. Its lines about
# anybody else's requests stay.
for _name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_not_ours)
