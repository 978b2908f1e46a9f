# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Sending of one request over ``requests``: one adapter and one small thread pool per account and settings, shared by
all clients in the process.

There is no ``requests.Session``. What a session adds to an adapter must not happen here (it follows redirects, keeps
cookies, and lets a ``.netrc`` entry replace the bearer token), and it takes a third of the CPU of a call.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.utils import get_environ_proxies

from airflow_provider_faceki.api.errors import (
    ConfigurationError,
    ConnectError,
    FacekiError,
    ResponseLostError,
    TlsError,
    TransportError,
    UnexpectedResponseError,
)
from airflow_provider_faceki.api.protocol.http import HttpRequest, HttpResponse
from airflow_provider_faceki.api.transport.adapter import (
    SendState,
    SendTimeout,
    SharedTLSAdapter,
    ca_bundle,
    sending,
    tls_context,
)
from airflow_provider_faceki.api.transport.rate_limiter import RateLimiter
from airflow_provider_faceki.api.uploads import Multipart

#: Longest wait in seconds for a connection; a host that is reachable answers within one round trip.
MAX_CONNECT_SECONDS = 10.0
#: Largest response body in bytes, decompressed. A record has some kilobytes; this leaves room for long lists of them.
MAX_RESPONSE_BYTES = 32 * 1024 * 1024
#: Largest report in bytes that is downloaded, to a file.
MAX_DOWNLOAD_BYTES = 256 * 1024 * 1024
#: Default of ``max_concurrency``: with responses after 200 ms, 160 requests a second. As many connections are kept
#: open, and as many threads wait on behalf of event loops.
DEFAULT_MAX_CONCURRENCY = 32

_CHUNK_BYTES = 64 * 1024
# Content codings that are asked for. A second coding over the first multiplies what a few bytes expand to.
_CONTENT_CODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
# All environment variables that name proxies for HTTP; on some systems the system's own settings count as well.
_PROXY_VARIABLES = tuple(
    spelling
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")
    for spelling in (name, name.upper())
)
_SYSTEMS_WITH_PROXY_SETTINGS = ("darwin", "win32")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class TransportSettings:
    """Settings of one transport.

    :param timeout: Seconds for each phase of a request: sending it, waiting for the head of the response, and reading
        the body. Default 30.
    :param upload_timeout: The same for requests that carry images. Default 120, as in FACEKI's Android SDK.
    :param verify: ``True`` for the public certificate authorities (or the environment's bundle), a path for a
        bundle file or directory, ``False`` for no check at all.
    :param proxies: Pairs of a scheme and a proxy URL. ``None``, the default: the proxies of the environment, except
        for a server on this machine's loopback. Empty, or a scheme with an empty URL: no proxy.
    :param max_concurrency: Most requests in flight at once. Default 32.
    :param max_requests_per_second: Most requests started per second; ``None``, the default, for no limit.
    """

    timeout: float = 30.0
    upload_timeout: float = 120.0
    verify: bool | str = True
    proxies: tuple[tuple[str, str], ...] | None = None
    max_concurrency: int = DEFAULT_MAX_CONCURRENCY
    max_requests_per_second: float | None = None


class Transport:
    """Sends requests with one set of settings. Thread-safe; get it from :func:`shared_transport`."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._reset()

    def _reset(self) -> None:
        self._threads = ThreadPoolExecutor(self._settings.max_concurrency, thread_name_prefix="faceki")
        self._in_flight = threading.BoundedSemaphore(self._settings.max_concurrency)
        self.rate_limiter = RateLimiter(self._settings.max_requests_per_second)
        self._adapter_lock = threading.Lock()
        self._adapter: SharedTLSAdapter | None = None
        self._cached_proxies: tuple[object, dict[str, str]] | None = None

    def _shared_adapter(self) -> SharedTLSAdapter:
        # Made by the first request, because the constructor may run on an event loop, and loading the certificate
        # authorities takes 25 ms.
        with self._adapter_lock:
            if self._adapter is None:
                context = tls_context(self._settings.verify)
                self._adapter = SharedTLSAdapter(context, self._settings.max_concurrency)
            return self._adapter

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send ``request`` once and read the whole response, whatever its status.

        :raises ConnectError: nothing was sent.
        :raises TlsError: nothing was sent, because the server is not trusted.
        :raises TransportError: the request was not sent to its end, so FACEKI cannot act on it.
        :raises ResponseLostError: something may have been sent, and no whole response came back.
        """
        upload = _Upload(request.body) if isinstance(request.body, Multipart) else None
        timeout = self._settings.upload_timeout if request.upload else self._settings.timeout
        state = SendState(timeout)
        try:
            with self._in_flight, sending(state):
                return self._send(request, upload, timeout)
        except SendTimeout:
            setting = "upload_timeout" if request.upload else "timeout"
            failure: BaseException = TransportError(
                f"{_host(request)} did not take the whole request within {setting}={timeout:g} s; the rest of it was "
                "not sent"
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError) as problem:
            failure = _map_exception(request, problem, begun=state.begun, verify=self._settings.verify)
            if upload is not None and not upload.begun:
                # FACEKI cannot have acted on a body of which nothing has left.
                failure.is_ambiguous = False
        except BaseException as problem:  # noqa: BLE001 - raised again below
            failure = without_frames(problem)
        # Raised out here: within `except`, `failure` would have as its context an error that carries the URL with its
        # query, and the frames of urllib3, whose local variables hold bodies and bearer tokens.
        raise failure

    async def run_in_thread(self, operation: Callable[[], T]) -> T:
        """Run a blocking ``operation`` in the transport's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, operation)

    def _send(self, request: HttpRequest, upload: _Upload | None, timeout: float) -> HttpResponse:
        with self._shared_adapter().send(
            _prepare(request, upload),
            timeout=(min(timeout, MAX_CONNECT_SECONDS), timeout),
            proxies=self._proxies(request.url),
            stream=True,
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            if headers.get("content-encoding", "").strip().lower() not in _CONTENT_CODINGS:
                raise UnexpectedResponseError("the response is compressed in a way that was not asked for")
            chunks = _chunks(response)
            first = _first(chunks)
            if request.download and response.ok and first.startswith(b"%PDF"):
                return HttpResponse(response.status_code, headers, file=_to_tempfile(chain([first], chunks)))
            return HttpResponse(response.status_code, headers, _joined(chain([first], chunks)))

    def _proxies(self, url: str) -> dict[str, str]:
        if self._settings.proxies is not None:
            return {scheme: proxy for scheme, proxy in self._settings.proxies if proxy}
        if is_loopback(urlsplit(url).hostname or ""):
            return {}
        if sys.platform in _SYSTEMS_WITH_PROXY_SETTINGS:
            return get_environ_proxies(url)
        # requests goes through the whole environment twice: a tenth of a call's CPU. The variables seldom change.
        key = (urlsplit(url)[:2], tuple(map(os.environ.get, _PROXY_VARIABLES)))
        cached = self._cached_proxies
        if cached is None or cached[0] != key:
            cached = self._cached_proxies = (key, get_environ_proxies(url))
        return dict(cached[1])


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine: its requests must not leave it through a proxy of the environment."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(name)
    except ValueError:
        try:
            # Short spellings such as 127.1, which the system's resolver takes.
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, ValueError):
            return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


_transports: dict[tuple[str, TransportSettings], Transport] = {}
_transports_lock = threading.Lock()


def shared_transport(account: str, settings: TransportSettings) -> Transport:
    """Return the process's one transport for an account and its settings.

    :param account: Text that tells accounts apart; limits on traffic hold for each account.
    :param settings: The transport's settings.
    """
    with _transports_lock:
        if (account, settings) not in _transports:
            _transports[account, settings] = Transport(settings)
        return _transports[account, settings]


def _after_fork() -> None:
    # A child must not use its parent's connections, and has none of its threads. Clients made before the fork keep
    # their transport.
    global _transports_lock
    _transports_lock = threading.Lock()
    for transport in _transports.values():
        transport._reset()


os.register_at_fork(after_in_child=_after_fork)


def without_frames(error: BaseException) -> BaseException:
    """Return ``error``, and the errors it is chained to, without the frames that they passed through.

    Tools such as Sentry report the local variables of frames; those of urllib3 hold bodies and bearer tokens.
    """
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        link = pending.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = None
        pending += [link.__cause__, link.__context__]
    return error


#: Sent with every request unless it has its own.
_DEFAULT_HEADERS = {
    "user-agent": "airflow-provider-faceki",
    "accept-encoding": "gzip, deflate",
    "accept": "*/*",
    "connection": "keep-alive",
}


def _prepare(request: HttpRequest, upload: _Upload | None) -> requests.PreparedRequest:
    prepared = requests.PreparedRequest()
    prepared.prepare_method(request.method)
    prepared.prepare_url(request.url, list(request.query))
    prepared.prepare_headers({**_DEFAULT_HEADERS, **dict(request.headers)})
    prepared.prepare_body(upload or request.body, None)
    return prepared


class _Upload:
    """A multipart body for ``requests`` that is read while it is sent, and knows whether reading has begun."""

    def __init__(self, body: Multipart) -> None:
        self._body = body
        self.begun = False

    def __len__(self) -> int:
        return self._body.length

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body.chunks():
            self.begun = True
            yield chunk


def _chunks(response: requests.Response) -> Iterator[bytes]:
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        yield chunk


def _first(chunks: Iterator[bytes]) -> bytes:
    """Take enough bytes to tell a PDF from a document; a chunk may be a single byte."""
    first = b""
    while len(first) < len(b"%PDF") and (chunk := next(chunks, b"")):
        first += chunk
    return first


def _joined(chunks: Iterable[bytes]) -> bytes:
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise UnexpectedResponseError(f"FACEKI's answer is larger than {MAX_RESPONSE_BYTES} bytes")
    return b"".join(parts)


def _to_tempfile(chunks: Iterable[bytes]) -> BinaryIO:
    """Write a download to a temporary file without a name, which is gone when it is closed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        for chunk in chunks:
            file.write(chunk)
            if file.tell() > MAX_DOWNLOAD_BYTES:
                raise UnexpectedResponseError(f"FACEKI's report is larger than {MAX_DOWNLOAD_BYTES} bytes")
    except BaseException:
        # Any failure, a killed task's too: the caller never gets the file.
        file.close()
        raise
    file.seek(0)
    return file


def _host(request: HttpRequest) -> str:
    return urlsplit(request.url).netloc.rpartition("@")[2]


def _map_exception(
    request: HttpRequest, problem: Exception, *, begun: bool, verify: bool | str
) -> FacekiError:
    host = _host(request)
    chain = list(_chain(problem))
    reason = next((link.strerror for link in chain if isinstance(link, OSError) and link.strerror), None)
    told = f" ({reason})" if reason else ""
    if begun:
        # Whatever the problem is called: urllib3 reports a lost response as a proxy that cannot be reached, and TLS
        # has errors that come in a handshake as well as in the middle of a response.
        return ResponseLostError(f"the answer of {host} was lost{told}; the request may have arrived")
    if isinstance(problem, _MALFORMED):
        return ConfigurationError(
            f"no request can be made for {host}: an address, a proxy's address or a header is malformed"
        )
    if any(_is_certificate_error(link) for link in chain):
        source = ca_bundle(verify)[0]
        where = "the Connection's verify" if source == "verify" else f"the environment variable {source}"
        return TlsError(f"no trusted TLS connection to {host}{told}; see {where}")
    if isinstance(problem, requests.Timeout):
        return ConnectError(f"no connection to {host} within {MAX_CONNECT_SECONDS:g} s or the timeout")
    if any(isinstance(link, urllib3.exceptions.ProxyError) for link in chain):
        return ConnectError(f"no connection to {host} through the proxy{told}")
    return ConnectError(f"no connection to {host}{told}")


# Raised before anything is sent: for an address, a proxy's address, or a header that HTTP cannot carry.
_MALFORMED = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
    urllib3.exceptions.LocationValueError,
    UnicodeError,
)


def _is_certificate_error(problem: BaseException) -> bool:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return True
    # The peer speaks no TLS; other reasons may be gone at the next attempt.
    return isinstance(problem, ssl.SSLError) and problem.reason in {
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
    }


def _chain(problem: BaseException) -> Iterator[BaseException]:
    """Yield ``problem`` and the errors nested in it, in the ways that requests and urllib3 nest them."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [problem]
    while pending:
        link = pending.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        nested = [*link.args, getattr(link, "reason", None), getattr(link, "original_error", None)]
        pending += [item for item in nested if isinstance(item, BaseException)]
        # Not `__context__`: that may be an earlier failure, which the caller was handling when it sent this request.
        pending.append(link.__cause__)
