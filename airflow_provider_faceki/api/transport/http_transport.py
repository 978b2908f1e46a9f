# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Transport that sends single requests with an adapter of ``requests``.

All clients in a process with the same account and settings share one transport, with one adapter and one thread pool.
The transport does not use ``requests.Session`` for two reasons:

- A session follows redirects, stores cookies and possibly replaces the bearer token with an entry of ``.netrc``.
- The work of a session would take about a third of the CPU time of each call.
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
from urllib.parse import urlencode, urlsplit

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
from airflow_provider_faceki.api.protocol.messages import HttpRequest, HttpResponse
from airflow_provider_faceki.api.transport.adapter import (
    SendState,
    SendTimeout,
    SharedTLSAdapter,
    ca_bundle,
    sending,
    tls_context,
)
from airflow_provider_faceki.api.uploads import Multipart

#: Maximum seconds for one step of a new connection. One step is the TCP connection to one address, or the wait for one
#: answer during the TLS handshake. A reachable host answers each step within one round trip. If the setting ``timeout``
#: is shorter than this maximum, ``timeout`` is the maximum for a step.
MAX_CONNECT_SECONDS = 10.0
#: Maximum size of a decompressed response body in bytes. A record has a few kilobytes, so long lists of records fit.
MAX_RESPONSE_BYTES = 32 * 1024 * 1024
#: Maximum size of a downloaded report in bytes. The maximum is large, because a report is written to a temporary file
#: and not held in memory.
MAX_DOWNLOAD_BYTES = 256 * 1024 * 1024
#: Default of ``max_concurrency``, the maximum number of concurrent requests. With a response time of 200 ms, the
#: default allows 160 requests per second. ``max_concurrency`` is also the maximum number of open connections to one
#: host, and the maximum number of threads that do the blocking work of asynchronous code.
DEFAULT_MAX_CONCURRENCY = 32

_CHUNK_BYTES = 64 * 1024
# Only these values of the header `content-encoding` are accepted. Combinations of these values are refused, because
# with them a few bytes could expand to a very large body.
_CONTENT_CODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
# The proxies for a host are cached. They are read again for a request to another host, and after a change of one of
# these environment variables. REQUEST_METHOD is one of the variables, because Python ignores HTTP_PROXY if
# REQUEST_METHOD is set.
_PROXY_VARIABLES = tuple(
    spelling
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")
    for spelling in (name, name.upper())
)
# macOS and Windows also have system-wide proxy settings. On these systems, the settings are read for each request.
_SYSTEMS_WITH_PROXY_SETTINGS = ("darwin", "win32")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class TransportSettings:
    """Settings of one transport.

    :param timeout: Maximum seconds for each of three phases of a request: sending the request, waiting for the head of
        the response, and reading the body of the response. Default: 30. Connecting is not one of these phases and has
        its own limit, :data:`MAX_CONNECT_SECONDS`.
    :param upload_timeout: Maximum seconds for each of these phases if the request sends files or downloads a report.
        Default: 120, as in FACEKI's Android SDK.
    :param verify: With ``True``, the CA bundle in the environment variable ``REQUESTS_CA_BUNDLE`` or ``CURL_CA_BUNDLE``
        is trusted. If neither variable is set, the public certificate authorities are trusted. A text is the path of a
        CA bundle, which is a file or a directory. With ``False``, certificates are not checked.
    :param proxies: Pairs of a scheme and a proxy URL. With ``None``, the default, the proxies of the environment are
        used, except for loopback addresses. With an empty tuple, no proxy is used. If the URL of a scheme is empty, no
        proxy is used for this scheme.
    :param max_concurrency: Maximum number of concurrent requests of the transport. Default: 32.
    :param max_requests_per_second: Maximum number of requests per second of the transport. ``None``, the default, means
        no limit.
    """

    timeout: float = 30.0
    upload_timeout: float = 120.0
    verify: bool | str = True
    proxies: tuple[tuple[str, str], ...] | None = None
    max_concurrency: int = DEFAULT_MAX_CONCURRENCY
    max_requests_per_second: float | None = None


class RateLimiter:
    """Rate limiter that assigns a time slot to each request. The minimum time between two slots is constant.

    The limit is optional, because FACEKI publishes no maximum rate. However, FACEKI charges extra for a high number of
    requests per day. A limit per second also limits the number per day. Source:
    https://docs.faceki.com/api-integration/verification-apis/authentication .

    :param per_second: Maximum number of requests per second. ``None`` means no limit.
    """

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = float("-inf")
        self._lock = threading.Lock()

    def reserve(self, now: float) -> float:
        """Reserve the next time slot for a request, and return the seconds until this slot.

        :param now: Current time of a monotonic clock, in seconds.
        """
        if not self._interval:
            return 0.0
        with self._lock:
            slot = max(now, self._next)
            self._next = slot + self._interval
            return slot - now


class Transport:
    """Thread-safe sender of HTTP requests with fixed settings. Use :func:`shared_transport` to create a transport."""

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
        # The first request creates the adapter. The constructor of the transport does not create it, because the
        # constructor possibly runs on an event loop, and loading the CA bundle would block the loop for 25 ms.
        with self._adapter_lock:
            if self._adapter is None:
                context = tls_context(self._settings.verify)
                self._adapter = SharedTLSAdapter(context, self._settings.max_concurrency)
            return self._adapter

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send ``request`` once and return the complete response, whatever its HTTP status is.

        Errors that are not in the list below reach the caller too, for example the :class:`ValidationError` for an
        image that cannot be read while the request is sent. No error has the traceback of its origin, because the local
        variables in this traceback contain request bodies and access tokens.

        :raises ConfigurationError: if the CA bundle cannot be read, or if an address or a header is malformed.
        :raises ConnectError: if no connection was established, so the request was not sent.
        :raises TlsError: if the server is not trusted, so the request was not sent.
        :raises TransportError: if the request was not sent completely, so FACEKI cannot act on it.
        :raises ResponseLostError: if the request was possibly sent, and no complete response was received.
        :raises UnexpectedResponseError: if the response is too large, or has an unknown compression.
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
                f"{_host(request)} did not accept the whole request within {setting}={timeout:g} s; "
                "the rest of it was not sent"
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError) as problem:
            failure = _map_exception(request, problem, begun=state.begun, verify=self._settings.verify)
            if upload is not None and not upload.begun:
                # No byte of the body was sent, so FACEKI cannot have acted on the request.
                failure.is_ambiguous = False
        except BaseException as problem:  # noqa: BLE001 - raised again below
            failure = without_frames(problem)
            if type(problem) is ValueError:
                failure = _map_exception(request, problem, begun=state.begun, verify=self._settings.verify)
        # `failure` is the error for the caller. If it were raised inside an except block, Python would attach the
        # original error to it as its context. The original error contains the URL with its query, and the local
        # variables in its traceback contain request bodies and bearer tokens. Therefore `failure` is raised outside the
        # except blocks.
        raise failure

    async def run_in_thread(self, operation: Callable[[], T]) -> T:
        """Run a blocking ``operation`` in one of the transport's threads and return its result."""
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
                raise UnexpectedResponseError("the response has a compression that the request did not allow")
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
        # The proxies are cached until the environment variables change. Without the cache, `requests` would read the
        # whole environment twice per call, which needs a tenth of the CPU time of a call.
        key = (urlsplit(url)[:2], tuple(map(os.environ.get, _PROXY_VARIABLES)))
        cached = self._cached_proxies
        if cached is None or cached[0] != key:
            cached = self._cached_proxies = (key, get_environ_proxies(url))
        return dict(cached[1])


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Return whether ``host`` is a loopback name or address, such as ``localhost`` or ``127.0.0.1``.

    Requests to such a host must not be sent to a proxy of the environment.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(name)
    except ValueError:
        try:
            # The system's name resolver accepts short spellings such as 127.1, so they are accepted here too.
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, ValueError):
            return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


_transports: dict[tuple[str, TransportSettings], Transport] = {}
_transports_lock = threading.Lock()


def shared_transport(account: str, settings: TransportSettings) -> Transport:
    """Return the transport that all clients of the process share for this account and these settings.

    :param account: Unique text for the account. The limits of concurrency and rate apply to each account separately.
    """
    with _transports_lock:
        if (account, settings) not in _transports:
            _transports[account, settings] = Transport(settings)
        return _transports[account, settings]


def _after_fork() -> None:
    # A child process must not use the connections of its parent process, and the threads of the parent process do not
    # exist in the child process. The transports are reset and not replaced, because clients that were created before
    # the fork still refer to them.
    global _transports_lock
    _transports_lock = threading.Lock()
    for transport in _transports.values():
        transport._reset()


os.register_at_fork(after_in_child=_after_fork)


def without_frames(error: BaseException) -> BaseException:
    """Remove the tracebacks of ``error`` and of the errors chained to it, and return ``error``.

    The tracebacks are removed, because tools such as Sentry report the local variables in a traceback. In the functions
    of urllib3, these variables contain bodies and bearer tokens.
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


#: Default headers of each request. A header of the request itself replaces the default header with the same name.
_DEFAULT_HEADERS = {
    "user-agent": "airflow-provider-faceki",
    "accept-encoding": "gzip, deflate",
    "accept": "*/*",
    "connection": "keep-alive",
}


@lru_cache(maxsize=64)
def _prepared_url(url: str) -> str:
    # The preparation of a URL takes about a tenth of the CPU time of a call, and most calls have the same few URLs. The
    # query is not cached, because it differs from call to call.
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, None)
    return prepared.url or ""


def _prepare(request: HttpRequest, upload: _Upload | None) -> requests.PreparedRequest:
    prepared = requests.PreparedRequest()
    prepared.prepare_method(request.method)
    prepared.url = _prepared_url(request.url)
    if request.query:
        prepared.url += f"?{urlencode(request.query)}"
    prepared.prepare_headers({**_DEFAULT_HEADERS, **dict(request.headers)})
    prepared.prepare_body(upload or request.body, None)
    return prepared


class _Upload:
    """Multipart body for ``requests``. Its files are read while the body is sent.

    The attribute ``begun`` is true as soon as the first chunk was read, because a part of the body was then possibly
    sent.
    """

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
    """Return the beginning of a response body, which shows whether the body is a PDF file.

    The result has at least the four bytes of ``%PDF``. If the whole body has fewer bytes, the whole body is returned.

    :param chunks: The body. A chunk is possibly a single byte, so several chunks are read if necessary.
    """
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
    """Write a downloaded body to an unnamed temporary file and return the file. Closing the file deletes it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        for chunk in chunks:
            file.write(chunk)
            if file.tell() > MAX_DOWNLOAD_BYTES:
                raise UnexpectedResponseError(f"FACEKI's report is larger than {MAX_DOWNLOAD_BYTES} bytes")
    except BaseException:
        # After an exception, the caller does not receive the file and cannot close it. Therefore the file is closed
        # here after any exception, including the exception with which Airflow ends a killed task.
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
    suffix = f" ({reason})" if reason else ""
    if begun:
        # A byte of the request was possibly sent. Therefore every exception is reported as a lost response. The class
        # of the exception is not reliable: urllib3 reports a lost response as an unreachable proxy, and the same TLS
        # errors occur in a handshake and in a response.
        return ResponseLostError(f"the answer of {host} was lost{suffix}; the request may have arrived")
    # A plain ValueError means a malformed header: with requests 2.33, a header with a line break reaches http.client,
    # which raises a plain ValueError whose text contains the header. The exact type is tested, because subclasses of
    # ValueError have other causes. For example, the error for an untrusted certificate is such a subclass.
    if isinstance(problem, _MALFORMED) or type(problem) is ValueError:
        return ConfigurationError(
            f"the request to {host} cannot be created: a URL, a proxy's URL or a header is invalid"
        )
    if any(_is_certificate_error(link) for link in chain):
        source = ca_bundle(verify)[0]
        where = "the Connection's verify" if source == "verify" else f"the environment variable {source}"
        return TlsError(f"no trusted TLS connection to {host}{suffix}; see {where}")
    if isinstance(problem, requests.Timeout):
        return ConnectError(f"no connection to {host} within {MAX_CONNECT_SECONDS:g} s or the timeout")
    if any(isinstance(link, urllib3.exceptions.ProxyError) for link in chain):
        return ConnectError(f"no connection to {host} through the proxy{suffix}")
    return ConnectError(f"no connection to {host}{suffix}")


# These exceptions mean an invalid URL, proxy URL or header. They are raised before the request is sent.
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
    # A TLS error with one of these values of `reason` means that the server does not use TLS on this port. A retry
    # cannot help, so the error is treated like an untrusted certificate. Other TLS errors are possibly temporary, so
    # they are treated like a failed connection, after which a retry can help.
    return isinstance(problem, ssl.SSLError) and problem.reason in {
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
    }


def _chain(problem: BaseException) -> Iterator[BaseException]:
    """Yield an exception and the exceptions that caused it, at any depth.

    The causes are found in the attributes ``args``, ``reason``, ``original_error`` and ``__cause__``.
    """
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
        # `__context__` is not followed, because it is possibly an earlier error that the caller was handling during
        # this request.
        pending.append(link.__cause__)
