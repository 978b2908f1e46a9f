# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Sends one request and reads one answer: one ``requests`` adapter with its connections and one small pool of threads
for each set of rules, shared by everything in the process.

There is no ``requests.Session``. What a session adds to an adapter is what must not happen here (it follows
redirects, keeps cookies, and puts a ``.netrc`` entry over our bearer token), and a third of the CPU of a call.
Only so much of an answer is taken, for so long.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    sending,
    tls_context,
)
from airflow_provider_faceki.api.transport.rate_limiter import RateLimiter
from airflow_provider_faceki.api.uploads import Multipart

#: Longest wait in seconds for a connection; a host that is there answers within one round trip.
MAX_CONNECT_SECONDS = 10.0
#: Largest answer in bytes that is read. A record is some kilobytes; this leaves room for long lists of them.
MAX_RESPONSE_BYTES = 32 * 1024 * 1024
#: Largest report in bytes that is downloaded, to a file.
MAX_DOWNLOAD_BYTES = 256 * 1024 * 1024
#: Requests in flight at the most: at 200 ms an answer, 160 a second. So many connections are kept, and so many
#: threads wait for answers on behalf of event loops. Default of ``max_concurrency``.
DEFAULT_MAX_CONCURRENCY = 32

_CHUNK = 64 * 1024
# All that an environment can say about proxies for HTTP; elsewhere the system's own settings count as well.
_PROXY_VARIABLES = tuple(
    spelt
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")
    for spelt in (name, name.upper())
)
_WITH_SYSTEM_PROXIES = ("darwin", "win32")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class TransportSettings:
    """The rules of one transport.

    :param timeout: Seconds for sending the whole request, then seconds of silence, then seconds for reading the
        whole answer from its first byte. Default 30.
    :param upload_timeout: The same for requests that carry images. Default 120, as in FACEKI's Android SDK.
    :param verify: ``True`` for the public certificate authorities (or the environment's bundle), a path for a
        bundle file or directory, ``False`` for no check at all.
    :param proxies: Proxy URL by scheme; ``None`` leaves it to the environment.
    :param max_concurrency: Requests in flight at the most. Default 32.
    :param max_requests_per_second: Requests begun per second at the most; ``None``, the default, for no limit.
    """

    timeout: float = 30.0
    upload_timeout: float = 120.0
    verify: bool | str = True
    proxies: tuple[tuple[str, str], ...] | None = None
    max_concurrency: int = DEFAULT_MAX_CONCURRENCY
    max_requests_per_second: float | None = None


class Transport:
    """Sends requests by one set of rules. Thread-safe; get it from :func:`shared_transport`."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._begin()

    def _begin(self) -> None:
        self._threads = ThreadPoolExecutor(self._settings.max_concurrency, thread_name_prefix="faceki")
        self._in_flight = threading.BoundedSemaphore(self._settings.max_concurrency)
        self.rate_limiter = RateLimiter(self._settings.max_requests_per_second)
        self._making = threading.Lock()
        self._adapter: SharedTLSAdapter | None = None
        self._found_proxies: tuple[object, dict[str, str]] | None = None

    def _shared_adapter(self) -> SharedTLSAdapter:
        # Made by the first sender, not by whoever makes the transport: that may be an event loop, and loading
        # the certificate authorities takes 25 ms.
        with self._making:
            if self._adapter is None:
                context = tls_context(self._settings.verify)
                self._adapter = SharedTLSAdapter(context, self._settings.max_concurrency)
            return self._adapter

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send ``request`` once and read the whole answer, whatever its status.

        :raises ConnectError: nothing was sent.
        :raises TlsError: nothing was sent, for the server could not be trusted.
        :raises TransportError: it was not sent to its end, so FACEKI cannot act on it.
        :raises ResponseLostError: something may have been sent, and no whole answer came.
        """
        limit = self._settings.upload_timeout if request.upload else self._settings.timeout
        body = _Upload(request.body) if isinstance(request.body, Multipart) else request.body
        sent = SendState(limit)
        try:
            with self._in_flight, sending(sent):
                return self._send(request, body, limit)
        except SendTimeout:
            setting = "upload_timeout" if request.upload else "timeout"
            failure: FacekiError = TransportError(
                f"{_host(request)} did not take the whole request within {setting}={limit:g} s; the rest of it was "
                "not sent"
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError) as problem:
            failure = _map_exception(request, problem, begun=sent.begun)
            if isinstance(body, _Upload) and not body.begun:
                # FACEKI cannot have acted on a body of which nothing has left.
                failure.is_ambiguous = False
        # Not where it is handled, for it would become this one's context, and it carries the URL with its query, or
        # the headers.
        raise failure

    async def run_in_thread(self, operation: Callable[[], T]) -> T:
        """Run a blocking ``operation`` in the transport's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, operation)

    def _send(self, request: HttpRequest, body: bytes | _Upload | None, limit: float) -> HttpResponse:
        with self._shared_adapter().send(
            _prepared(request, body),
            timeout=(min(limit, MAX_CONNECT_SECONDS), limit),
            proxies=self._proxies(request.url),
            stream=True,
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            chunks = _chunks(response)
            first = _first(chunks)
            if request.download and response.ok and first.startswith(b"%PDF"):
                return HttpResponse(response.status_code, headers, file=_to_tempfile(chain([first], chunks)))
            return HttpResponse(response.status_code, headers, _joined(chain([first], chunks)))

    def _proxies(self, url: str) -> dict[str, str]:
        if self._settings.proxies is not None:
            return dict(self._settings.proxies)
        if sys.platform in _WITH_SYSTEM_PROXIES:
            return get_environ_proxies(url)
        # To find them, the whole environment is gone through twice: a tenth of a call's CPU. They seldom change.
        seen = (urlsplit(url)[:2], tuple(map(os.environ.get, _PROXY_VARIABLES)))
        found = self._found_proxies
        if found is None or found[0] != seen:
            found = self._found_proxies = (seen, get_environ_proxies(url))
        return dict(found[1])


_transports: dict[tuple[str, TransportSettings], Transport] = {}
_transports_lock = threading.Lock()


def shared_transport(account: str, settings: TransportSettings) -> Transport:
    """Return the process's one transport for an account.

    :param account: Whatever tells accounts apart; limits on traffic are each account's own.
    :param settings: Its rules.
    """
    with _transports_lock:
        if (account, settings) not in _transports:
            _transports[account, settings] = Transport(settings)
        return _transports[account, settings]


def _after_fork() -> None:
    # A child must not speak on its parent's connections, and has none of its threads; a client that was made
    # before the fork goes on with the same transport.
    global _transports_lock
    _transports_lock = threading.Lock()
    for transport in _transports.values():
        transport._begin()


os.register_at_fork(after_in_child=_after_fork)


#: What goes with every request unless it says otherwise.
_HEADERS = {
    "user-agent": "airflow-provider-faceki",
    "accept-encoding": "gzip, deflate",
    "accept": "*/*",
    "connection": "keep-alive",
}


def _prepared(request: HttpRequest, body: bytes | _Upload | None) -> requests.PreparedRequest:
    prepared = requests.PreparedRequest()
    prepared.prepare_method(request.method)
    prepared.prepare_url(request.url, list(request.query))
    prepared.prepare_headers({**_HEADERS, **dict(request.headers)})
    prepared.prepare_body(body, None)
    return prepared


class _Upload:
    """A body for ``requests`` that is read as it is sent, and knows whether any of it was."""

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
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        yield chunk


def _first(chunks: Iterator[bytes]) -> bytes:
    """Take enough to tell a PDF from a document: a chunk is whatever has arrived, and may be a single byte."""
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
    """Put a download into a temporary file that has no name, so that it is gone when it is closed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's to close
    try:
        for chunk in chunks:
            file.write(chunk)
            if file.tell() > MAX_DOWNLOAD_BYTES:
                raise UnexpectedResponseError(f"FACEKI's report is larger than {MAX_DOWNLOAD_BYTES} bytes")
    except BaseException:
        # Whatever it was goes on its way; nobody else knows of the file.
        file.close()
        raise
    file.seek(0)
    return file


def _host(request: HttpRequest) -> str:
    return urlsplit(request.url).netloc.rpartition("@")[2]


def _map_exception(request: HttpRequest, problem: Exception, *, begun: bool) -> FacekiError:
    host = _host(request)
    chain = list(_chain(problem))
    reason = next((link.strerror for link in chain if isinstance(link, OSError) and link.strerror), None)
    told = f" ({reason})" if reason else ""
    if begun:
        # Whatever the problem is called: urllib3 takes a lost answer for a proxy that cannot be reached, and TLS
        # knows errors that come in a handshake or in the midst of an answer.
        return ResponseLostError(f"the answer of {host} was lost{told}; the request may have arrived")
    if isinstance(problem, _MALFORMED):
        return ConfigurationError(
            f"no request can be made for {host}: an address, a proxy's address or a header is malformed"
        )
    if any(_is_certificate_error(link) for link in chain):
        return TlsError(f"no trusted TLS connection to {host}{told}; see the Connection's verify")
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
    # What speaks no TLS; other reasons may be gone at the next attempt.
    return isinstance(problem, ssl.SSLError) and problem.reason in {
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
    }


def _chain(problem: BaseException) -> Iterator[BaseException]:
    """Yield ``problem`` and what it was raised for, through the ways that requests and urllib3 nest it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [problem]
    while waiting:
        link = waiting.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        nested = [*link.args, getattr(link, "reason", None), getattr(link, "original_error", None)]
        waiting += [item for item in nested if isinstance(item, BaseException)]
        # Not `__context__`: that may be an earlier failure, which the caller was handling when it asked again.
        waiting.append(link.__cause__)
