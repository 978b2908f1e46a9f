# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How long may it take until a request has left, and what is known of one that was not sent to its end?"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.protocol.http import HttpRequest, HttpResponse, image_request
from airflow_provider_faceki.api.transport import adapter as connections
from airflow_provider_faceki.api.transport import requests_transport as transport
from airflow_provider_faceki.api.transport.multipart import Image
from airflow_provider_faceki.api.transport.requests_transport import Transport, TransportSettings
from airflow_provider_faceki.api.transport.retry import may_repeat
from tests.api.certificates import Authority
from tests.api.proxy import RecordingProxy
from tests.api.scripted import RECORDS_PATH, ScriptedServer, Talk, says

#: More than the two ends of a connection on loopback hold between them.
LARGE = 24 * 1024 * 1024


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set at the end: servers that would go on for ever stop then."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(params=["plain", "TLS", "TLS through a proxy"])
def slow(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Slow]:
    """Each of the ways in which a request gets out."""
    context: ssl.SSLContext | None = None if request.param == "plain" else authority.server_context()
    with ScriptedServer(context) as server, RecordingProxy() as proxy:
        server.on(RECORDS_PATH, says({"status": True, "code": 200, "result": {}}))
        proxies = (("https", f"http://{proxy.address}"),) if "proxy" in request.param else ()
        yield Slow(server, proxies, authority.bundle)


class Slow:
    """A server that is in no hurry to read."""

    def __init__(self, server: ScriptedServer, proxies: tuple[tuple[str, str], ...], bundle: str) -> None:
        self.server = server
        self._proxies, self._bundle = proxies, bundle

    def send(self, lookup_timeout: float, image: Image | None = None) -> HttpResponse:
        """Send a picture that is too large to be sent without being read."""
        settings = TransportSettings(
            upload_timeout=lookup_timeout, verify=self._bundle, proxies=self._proxies
        )
        return Transport(settings).send(self.request(image))

    def request(self, image: Image | None = None) -> HttpRequest:
        """Return the request that is sent."""
        image = image or Image.of_bytes("selfie", b"\xff\xd8\xff" + b"a" * LARGE, 2 * LARGE)
        return image_request(f"{self.server.url}{RECORDS_PATH}", (), [("selfie", image)])


def test_a_pause_in_reading_is_borne_for_longer_than_connecting_may_take(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "LONGEST_CONNECT", 0.5)
    slow.server.before_body = lambda talk: time.sleep(1.5)
    assert slow.send(20.0).status == 200
    (heard,) = slow.server.heard
    assert len(heard.body) > LARGE


def _never(over: threading.Event) -> Callable[[Talk], None]:
    def wait(talk: Talk) -> None:
        over.wait(20)

    return wait


def _in_drops(over: threading.Event) -> Callable[[Talk], None]:
    def read(talk: Talk) -> None:
        while not over.wait(0.05) and talk.rfile.read1(65536):
            pass
        talk.connection.close()

    return read


@pytest.mark.parametrize("reads", [pytest.param(_never, id="never"), pytest.param(_in_drops, id="in drops")])
def test_an_upload_ends_when_its_time_is_over(
    slow: Slow, over: threading.Event, reads: Callable[[threading.Event], Callable[[Talk], None]]
) -> None:
    slow.server.before_body = reads(over)
    begun = time.monotonic()
    with pytest.raises(errors.TransportError, match="upload_timeout=1 s") as caught:
        slow.send(1.0)
    assert time.monotonic() - begun < 2.5
    assert not caught.value.is_ambiguous
    assert may_repeat(slow.request(), caught.value), "what did not arrive whole may be sent again"
    assert slow.server.heard == []


class _SlowPicture(BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        time.sleep(0.05)
        return super().read(size)


def test_so_it_does_where_the_picture_is_read_slowly(slow: Slow) -> None:
    content = b"\xff\xd8\xff" + b"a" * LARGE
    picture = Image(lambda: _SlowPicture(content), len(content), "image/jpeg", "jpg")
    begun = time.monotonic()
    with pytest.raises(errors.TransportError, match="upload_timeout"):
        slow.send(1.0, picture)
    assert time.monotonic() - begun < 2.5


class _Counted(BytesIO):
    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.given = 0

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        self.given += len(chunk)
        return chunk


@pytest.mark.skipif(connections.BACKLOG_OPTION is None, reason="this system has no such option")
@pytest.mark.parametrize("slow", ["plain", "TLS"], indirect=True)
def test_the_system_holds_little_that_it_would_send_after_the_end(over: threading.Event, slow: Slow) -> None:
    content = b"\xff\xd8\xff" + b"a" * LARGE
    read = _Counted(content)
    slow.server.before_body = _never(over)
    with pytest.raises(errors.TransportError):
        slow.send(1.0, Image(lambda: read, len(content), "image/jpeg", "jpg"))
    assert read.given < 1024 * 1024
