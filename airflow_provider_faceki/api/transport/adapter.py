# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""HTTP connections with one TLS context per transport and a deadline for each phase of a request.

The timeouts of urllib3 apply to each socket operation, not to a whole phase, so a slow server could block a worker for
hours. A server can send interim responses (HTTP status 1xx; RFC 9110, section 15.2) before the final response. urllib3
skips only interim responses with status 100, and treats any other interim response as the final response. Therefore
this module extends urllib3's connection classes.

The extended classes reuse a connection only if it is certain where the last response on the connection ended. See
docs/decisions/deadlines.md.
"""

from __future__ import annotations

import io
import logging
import os
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import BadStatusLine, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection

from airflow_provider_faceki.api.errors import ConfigurationError

#: Maximum number of unsent bytes in the kernel's buffer of a connection. The kernel sends these bytes even after the
#: deadline or the end of the process. Without this maximum, the kernel's default limit of up to 4 MiB would apply. On a
#: slow uplink, the kernel would need minutes to send 4 MiB.
MAX_UNSENT_BYTES = 256 * 1024
#: The socket option that limits the unsent bytes, or ``None`` if the operating system has no such option.
NOTSENT_LOWAT_OPTION: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)

# Clock for the deadline of sending. `CLOCK_BOOTTIME` continues while the machine is suspended, so the deadline can pass
# during this time. If the deadline has passed, the rest of the request is not sent after the machine resumes. This is
# important, because another machine has possibly sent the same request in the meantime. Operating systems without
# `CLOCK_BOOTTIME` use `CLOCK_MONOTONIC`.
_SEND_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: A server can answer before the request is sent completely. As soon as at least this number of response bytes is
#: stored, no more bytes are read until the request is sent. A single read also returns at most this number of bytes.
#: The bytes are needed only to find out whether the server has already sent a final status, and a status line is much
#: shorter.
_MAX_EARLY_BYTES = 16 * 1024
#: Lock that is held while a TLS context is created, and during each fork. OpenSSL uses locks of its own. If a thread
#: created a context during a fork, a lock would stay locked in the child process, and the child would wait forever when
#: it creates its own context. The lock is reentrant, because a thread that holds it can fork.
_context_lock = threading.RLock()
os.register_at_fork(
    before=_context_lock.acquire,
    after_in_parent=_context_lock.release,
    after_in_child=_context_lock.release,
)
_INTERIM_RESPONSE = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d\b.*?\r?\n\r?\n", re.DOTALL)
_FINAL_STATUS = re.compile(rb"HTTP/1\.\d [2-9]")


class SendTimeout(Exception):
    """Error: the request was not sent completely before the deadline, so the server cannot act on it."""


@dataclass
class SendState:
    """Progress of the request that this thread sends.

    :param timeout: Maximum seconds for sending the request.
    :param begun: Whether a byte of the request was possibly sent. urllib3's exceptions do not show this. For example,
        if the connection is lost after sending, urllib3 possibly reports an unreachable proxy.
    """

    timeout: float
    begun: bool = False


_current = threading.local()


@contextmanager
def sending(state: SendState) -> Iterator[None]:
    """Context manager in which this thread sends one request with the timeout in ``state``.

    urllib3's log lines about the request are suppressed.

    :param state: Object with the timeout for sending. The connection sets its attribute ``begun`` to true as soon as a
        byte of the request was possibly sent.
    """
    _current.state = state
    try:
        yield
    finally:
        _current.state = None


class _SocketReader(io.RawIOBase):
    """Reader of a socket with a deadline. It first returns the bytes that arrived while the request was sent."""

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        # `self._file` is never read. It only keeps the network connection open until `close` is called. http.client
        # possibly closes its socket object before the body is read. Python closes the network connection only when the
        # socket object and all its file objects are closed.
        self._file = sock.makefile("rb", buffering=0)
        self._deadline = 0.0
        self._early = bytearray()
        self._is_stopped = False

    def set_timeout(self, seconds: float) -> None:
        """Set the deadline to ``seconds`` from now."""
        self._deadline = time.monotonic() + seconds

    def stop(self) -> None:
        """Stop reading from the socket. Later reads return only the bytes that :meth:`read_early` stored."""
        self._is_stopped = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._early:
            size = min(len(buffer), len(self._early))
            buffer[:size] = self._early[:size]
            del self._early[:size]
            return size
        if self._is_stopped:
            return 0
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        received: int = self._socket.recv_into(buffer)
        return received

    def read_early(self) -> bool:
        """Read and store response bytes that have already arrived, at most ``_MAX_EARLY_BYTES``, without waiting.

        Return ``True`` if a later call possibly reads more bytes. Return ``False`` if the server has sent its last
        byte, or if at least ``_MAX_EARLY_BYTES`` bytes are stored. The caller then reads no more bytes until the
        request is sent.
        """
        self._socket.settimeout(0.0)
        try:
            data = self._socket.recv(_MAX_EARLY_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        self._early += data
        return bool(data) and len(self._early) < _MAX_EARLY_BYTES

    def has_final_status(self) -> bool:
        """Return True if the received bytes contain the status of the final response.

        A server can send interim responses (HTTP status 1xx) before the final response. This method removes the interim
        responses from the received bytes.
        """
        while interim := _INTERIM_RESPONSE.match(self._early):
            del self._early[: interim.end()]
        return bool(_FINAL_STATUS.match(self._early))

    def has_decrypted_bytes(self) -> bool:
        """Return True if the TLS layer contains decrypted bytes that are not read yet.

        The system call ``poll`` does not report such bytes, because they are no longer in the buffer of the socket.
        """
        pending = getattr(self._socket, "pending", None)
        return pending is not None and bool(pending())

    def close(self) -> None:
        self._file.close()
        super().close()


class _ResponseStream(io.BufferedReader):
    """Stream of the bytes that the server sends as the response to one request."""

    #: True if the buffers of Python and TLS were empty when the stream was closed. If a byte remains, the value is
    #: False, and the connection is not reused. In this case, the response was not read completely, or client and server
    #: disagree about the end of the response. urllib3 itself checks the buffer of the operating system.
    is_drained = False

    def __init__(self, sock: Any) -> None:
        self.reader = _SocketReader(sock)
        super().__init__(self.reader)

    def close(self) -> None:
        if not self.closed:
            self.reader.stop()
            self.is_drained = not self.peek() and not self.reader.has_decrypted_bytes()
        super().close()


class _Response(HTTPResponse):
    """HTTP response with one deadline for its head and another deadline for its body.

    If it is not certain where the response ends, the connection is closed and not reused.
    """

    def __init__(
        self, sock: Any, stream: _ResponseStream, *args: Any, is_request_sent: bool, **kwargs: Any
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = self._stream = stream
        self._timeout: float = sock.gettimeout()
        self._is_request_sent = is_request_sent
        stream.reader.set_timeout(self._timeout)

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200:
            if self.status == HTTPStatus.SWITCHING_PROTOCOLS:
                # Status 101 means that the server changes to another protocol. The client never requests this, so the
                # response is an error. The bytes after it are not HTTP.
                raise BadStatusLine(str(self.status))
            self.headers = self.msg = None  # type: ignore[assignment]  # so that http.client reads another head
            super().begin()
        self._check_framing()
        self._stream.reader.set_timeout(self._timeout)

    def _check_framing(self) -> None:
        # If the server possibly sees the end of this response at another place than the client, the connection is
        # closed after the response. This is the case if the headers contradict each other, or if the server has
        # answered before the whole request was sent. A response with status 204 or 304 never has a body. Headers that
        # describe a body are valid with status 304. With status 204 they are a contradiction.
        coding, length = self.headers.get("transfer-encoding"), self.headers.get("content-length")
        has_body = bool(coding) or length not in {None, "0"}
        if self.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            self.chunked = False
            self.will_close = self.will_close or (has_body and self.status == HTTPStatus.NO_CONTENT)
        if coding and (length is not None or not self.chunked):
            self.will_close = True
        if not self._is_request_sent:
            self.will_close = True


class _Connection(HTTPConnection):
    """Mixin that adds deadlines to urllib3's connection classes.

    The mixin also prevents the reuse of a connection if bytes remained in a buffer after the last response.
    """

    _send_deadline: float | None = None
    _stream: _ResponseStream | None = None
    _is_request_sent = False
    _poll_events = 0

    @property
    def is_connected(self) -> bool:
        """Whether the connection can be used for another request. urllib3 reads this property before each reuse."""
        return super().is_connected and (self._stream is None or self._stream.is_drained)

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> _Response:  # type: ignore[override]
        """Create the response object for a request, or for the ``CONNECT`` request to a proxy.

        http.client expects a class in the attribute ``response_class`` and calls it to create a response. This method
        replaces the class.
        """
        if self._stream is None:
            self._stream = _ResponseStream(sock)
        return _Response(sock, self._stream, *args, is_request_sent=self._is_request_sent, **kwargs)

    def connect(self) -> None:
        self._stream = None
        super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            # The connection is established before the deadline for sending is set, because connecting has its own
            # timeout. Connecting through a proxy includes a CONNECT request, to which the deadline for sending must not
            # apply.
            self.connect()
        self._stream = None
        self._poll_events = select.POLLIN | select.POLLOUT
        self._is_request_sent = False
        self._send_deadline = time.clock_gettime(_SEND_CLOCK) + _current.state.timeout
        try:
            super().request(*args, **kwargs)
            self._is_request_sent = True
        finally:
            self._send_deadline = None

    def send(self, data: Any) -> None:
        if self._send_deadline is None:
            return super().send(data)
        state: SendState = _current.state
        if state.begun and isinstance(self.sock, socket.socket):
            return self._send_body(self.sock, data, self._send_deadline)
        self.sock.settimeout(_seconds_until(self._send_deadline))
        state.begun = True
        try:
            super().send(data)
        except TimeoutError:
            # The socket raises TimeoutError only if it did not accept all bytes, so the request is incomplete.
            raise SendTimeout from None

    def _send_body(self, sock: socket.socket, data: bytes, deadline: float) -> None:
        """Send a part of the request body.

        :param deadline: Time of the clock ``_SEND_CLOCK`` until which all bytes must be sent.
        :raises BrokenPipeError: if a final response arrives before all bytes are sent.
        :raises SendTimeout: if the deadline passes before all bytes are sent.
        """
        unsent = memoryview(data)
        poll = select.poll()
        poll.register(sock, self._poll_events)
        while unsent:
            events = dict(poll.poll(_seconds_until(deadline) * 1000)).get(sock.fileno(), 0)
            if events & select.POLLIN:
                if self._is_answered_early(sock):
                    # The server has answered before the whole body was sent, so the rest is not sent. A BrokenPipeError
                    # is raised, because urllib3 then assumes that the server has closed the connection, and reads the
                    # response.
                    raise BrokenPipeError
                poll.modify(sock, self._poll_events)
            if events & ~select.POLLIN:
                # The deadline is checked again, because the process was possibly suspended after the last check.
                # Without this check, the last bytes could be sent after the deadline, and the server would act on the
                # request.
                _seconds_until(deadline)
                sock.settimeout(0.0)
                # A TLS socket possibly has to read before it can write, so SSLWantReadError is not a failure here.
                with suppress(BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    unsent = unsent[sock.send(unsent) :]

    def _is_answered_early(self, sock: socket.socket) -> bool:
        if self._stream is None:
            self._stream = _ResponseStream(sock)
        if not self._stream.reader.read_early():
            self._poll_events = select.POLLOUT
        return self._stream.reader.has_final_status()


def _seconds_until(deadline: float) -> float:
    left: float = deadline - time.clock_gettime(_SEND_CLOCK)
    if left <= 0:
        raise SendTimeout
    return left


class SharedTLSAdapter(HTTPAdapter):
    """Adapter of ``requests`` that uses one TLS context for all connections.

    This saves time, because the standard adapter of ``requests`` loads the CA bundle for each connection, which needs
    25 ms.

    :param context: TLS context of all connections. It contains the trusted CA certificates.
    :param max_connections: Maximum number of idle connections to one host that remain open.
    """

    def __init__(self, context: ssl.SSLContext, max_connections: int) -> None:
        self._lock = threading.Lock()
        options = list(HTTPConnection.default_socket_options)
        if NOTSENT_LOWAT_OPTION is not None:
            options.append((socket.IPPROTO_TCP, NOTSENT_LOWAT_OPTION, MAX_UNSENT_BYTES))
        self._pool_options: dict[str, Any] = {"ssl_context": context, "socket_options": options}
        self._last_pool: tuple[object, Any] = (None, None)
        super().__init__(pool_maxsize=max_connections)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= self._pool_options
        super().init_poolmanager(*args, **kwargs)
        _install_connection_class(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        with self._lock:
            if proxy in self.proxy_manager:
                return super().proxy_manager_for(proxy)
            manager = super().proxy_manager_for(proxy, **self._pool_options, **kwargs)
            _install_connection_class(manager)
            return manager

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the pool of connections to the host of the request, or to its proxy.

        Nearly all requests have the same host. Therefore the pool of the last direct request is kept. To find it again,
        urllib3 would need a fifteenth of the CPU time of a call. urllib3 closes a pool only when nothing refers to it.
        """
        host = urlsplit(request.url or "")[:2]
        last_host, pool = self._last_pool
        if not proxies and host == last_host:
            return pool
        pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
        if not proxies:
            self._last_pool = host, pool
        return pool

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: object, cert: object = None
    ) -> Any:
        parts = urlsplit(request.url or "")
        return {"scheme": parts.scheme, "host": parts.hostname, "port": parts.port}, {}

    def build_response(self, request: requests.PreparedRequest, answer: Any) -> requests.Response:
        """Return the response with its status, its headers and its unread body.

        The method of the base class also reads the cookies, which the transport does not use. This would take about a
        fifteenth of the CPU time of a call.
        """
        response = requests.Response()
        response.status_code, response.raw = answer.status, answer
        response.headers = CaseInsensitiveDict(answer.headers)
        return response

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing.

        ``requests`` calls this method to configure the check of the server's certificate. Here, the TLS context already
        contains this configuration.
        """


def _install_connection_class(manager: Any) -> None:
    # `manager` is a pool manager of urllib3. A pool manager for a SOCKS proxy uses other pool and connection classes
    # than a usual pool manager. Therefore the new classes are derived from the classes of the given pool manager.
    manager.pool_classes_by_scheme = {
        scheme: type(
            pool.__name__,
            (pool,),
            {"ConnectionCls": type("_PoolConnection", (_Connection, pool.ConnectionCls), {})},
        )
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


#: Environment variables of ``requests`` for the CA bundle. This module reads them, because ``requests`` reads them only
#: in a ``Session``, which the transport does not use.
_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def ca_bundle(verify: bool | str) -> tuple[str, str | None]:
    """Return the source and the path of the CA bundle.

    The source is ``"verify"`` for the setting ``verify``, or the name of an environment variable. If certificates are
    not checked, the path is ``None``.

    :param verify: The setting ``verify`` of a transport.
    """
    if verify is True:
        for name in _BUNDLE_VARIABLES:
            if bundle := os.environ.get(name):
                return name, bundle
        return "verify", certifi.where()
    return "verify", verify or None


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """Return a TLS context for the setting ``verify`` of a transport.

    :raises ConfigurationError: if the CA bundle cannot be read; see :func:`ca_bundle`.
    """
    source, bundle = ca_bundle(verify)
    is_directory = bundle is not None and os.path.isdir(bundle)
    try:
        with _context_lock:
            context = ssl.create_default_context(
                cafile=None if is_directory else bundle, capath=bundle if is_directory else None
            )
    except (OSError, ssl.SSLError):
        where = source if source == "verify" else f"the environment variable {source}"
        raise ConfigurationError(f"{where}: {bundle!r} is not a readable bundle of CA certificates") from None
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_not_ours(_record: logging.LogRecord) -> bool:
    return getattr(_current, "state", None) is None


# urllib3 logs the path and query of each request at level DEBUG. It logs the whole URL at level WARNING if the headers
# of a response are malformed. The query possibly contains a link id, or the client secret in a legacy form of the token
# request. Therefore these log lines are dropped. Log lines about requests of other libraries are not filtered.
for _name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_is_not_ours)
