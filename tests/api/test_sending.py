# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The deadline for sending a request, and the error for a request that was not sent completely."""

from __future__ import annotations

import select
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from types import SimpleNamespace

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.protocol.messages import HttpRequest, HttpResponse, image_request
from airflow_provider_faceki.api.transport import adapter as connections
from airflow_provider_faceki.api.transport import http_transport as transport
from airflow_provider_faceki.api.transport.http_transport import Transport, TransportSettings
from airflow_provider_faceki.api.transport.retry import may_repeat
from airflow_provider_faceki.api.uploads import Image
from tests.api.certificates import Authority
from tests.api.fake_server import RECORDS_PATH, FakeServer, Handler, reply_json
from tests.api.proxy import RecordingProxy
from tests.waiting import wait_until

#: Size in bytes that is larger than the kernel buffers of both ends of a loopback connection.
LARGE = 24 * 1024 * 1024


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """An event that is set at the end of the test, so that endless replies stop."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(params=["plain", "TLS", "TLS through a proxy"])
def slow(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Slow]:
    """A slow server behind each kind of connection."""
    context: ssl.SSLContext | None = None if request.param == "plain" else authority.server_context()
    with FakeServer(context) as server, RecordingProxy() as proxy:
        server.on(RECORDS_PATH, reply_json({"status": True, "code": 200, "result": {}}))
        proxies = (("https", f"http://{proxy.address}"),) if "proxy" in request.param else ()
        yield Slow(server, proxies, authority.bundle)


class Slow:
    """A server that reads slowly or not at all, and the transport to it."""

    def __init__(self, server: FakeServer, proxies: tuple[tuple[str, str], ...], bundle: str) -> None:
        self.server = server
        self._proxies, self._bundle = proxies, bundle

    def send(self, lookup_timeout: float, image: Image | None = None) -> HttpResponse:
        """Send an image. The default image is larger than all kernel buffers, so the server has to read."""
        settings = TransportSettings(
            upload_timeout=lookup_timeout, verify=self._bundle, proxies=self._proxies
        )
        return Transport(settings).send(self.request(image))

    def request(self, image: Image | None = None) -> HttpRequest:
        """Return the request with the image."""
        image = image or Image.of_bytes("selfie", b"\xff\xd8\xff" + b"a" * LARGE, 2 * LARGE)
        return image_request(f"{self.server.url}{RECORDS_PATH}", (), [("selfie", image)])


def test_a_pause_in_reading_may_exceed_the_connect_timeout(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_CONNECT_SECONDS", 0.5)
    slow.server.before_body = lambda handler: time.sleep(1.5)
    assert slow.send(20.0).status == 200
    (received,) = slow.server.received
    assert len(received.body) > LARGE


def _never(over: threading.Event) -> Callable[[Handler], None]:
    def wait(handler: Handler) -> None:
        over.wait(20)

    return wait


def _read_slowly(over: threading.Event) -> Callable[[Handler], None]:
    def read(handler: Handler) -> None:
        left = int(handler.headers["content-length"])
        while left and not over.wait(0.05) and (piece := handler.rfile.read1(65536)):
            left -= len(piece)
        if left:
            # The client has ended in the middle of the body. Without this error, the server would record a request.
            raise ConnectionAbortedError

    return read


@pytest.mark.parametrize(
    "reads", [pytest.param(_never, id="never"), pytest.param(_read_slowly, id="in drops")]
)
def test_an_upload_ends_when_its_time_is_over(
    slow: Slow, over: threading.Event, reads: Callable[[threading.Event], Callable[[Handler], None]]
) -> None:
    slow.server.before_body = reads(over)
    with pytest.raises(errors.TransportError, match="upload_timeout=1 s") as caught:
        slow.send(1.0)
    assert not caught.value.is_ambiguous
    assert may_repeat(slow.request(), caught.value), "what did not arrive whole may be sent again"
    assert slow.server.received == []


class _SlowImage(BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        time.sleep(0.05)
        return super().read(size)


def test_an_upload_of_a_slowly_read_image_times_out(slow: Slow) -> None:
    content = b"\xff\xd8\xff" + b"a" * LARGE
    image = Image(lambda: _SlowImage(content), len(content), "image/jpeg", "jpg")
    with pytest.raises(errors.TransportError, match="upload_timeout"):
        slow.send(1.0, image)


class _Counted(BytesIO):
    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.given = 0

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        self.given += len(chunk)
        return chunk


class _Suspended:
    """Replacement for the modules ``select`` and ``time``. Each wait for the socket suspends the machine for a day.

    Only ``clock_gettime`` shows this day, because its clock continues during a suspension. ``monotonic`` does not.
    """

    POLLIN, POLLOUT = select.POLLIN, select.POLLOUT
    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._slept = 0.0

    def poll(self) -> SimpleNamespace:
        real = select.poll()

        def wait(milliseconds: float) -> list[tuple[int, int]]:
            events = real.poll(milliseconds)
            self._slept += 86400.0
            return events

        return SimpleNamespace(register=real.register, modify=real.modify, poll=wait)

    def clock_gettime(self, clock: int) -> float:
        return time.clock_gettime(clock) + self._slept


@pytest.mark.parametrize("slow", ["plain", "TLS"], indirect=True)
def test_a_request_is_not_completed_after_its_deadline(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was suspended before the last bytes of a request does not send them when it resumes."""
    suspended = _Suspended()
    monkeypatch.setattr(connections, "select", suspended)
    monkeypatch.setattr(connections, "time", suspended)
    image = Image.of_bytes("selfie", b"\xff\xd8\xff" + b"a" * 1000, LARGE)
    with pytest.raises(errors.TransportError, match="upload_timeout=60 s") as caught:
        slow.send(60.0, image)
    assert not caught.value.is_ambiguous
    wait_until(lambda: slow.server.received)
    (received,) = slow.server.received
    assert received.body == b""


@pytest.mark.skipif(connections.NOTSENT_LOWAT_OPTION is None, reason="this system has no such option")
@pytest.mark.parametrize("slow", ["plain", "TLS"], indirect=True)
def test_few_unsent_bytes_are_buffered_after_the_timeout(over: threading.Event, slow: Slow) -> None:
    content = b"\xff\xd8\xff" + b"a" * LARGE
    read = _Counted(content)
    slow.server.before_body = _never(over)
    with pytest.raises(errors.TransportError):
        slow.send(1.0, Image(lambda: read, len(content), "image/jpeg", "jpg"))
    assert read.given < 1024 * 1024
