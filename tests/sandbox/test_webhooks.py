# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the webhooks: their body, their order, their modes, and receivers that fail."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox, Settings
from airflow_provider_faceki.sandbox.backend.webhooks import WebhookSender, post
from tests.sandbox.conftest import Caller

Eventually = Callable[[Callable[[], object]], None]


class Server(ThreadingHTTPServer):
    # With the default of 5, the system drops connections of a burst, and the client repeats them only after 1 s.
    request_queue_size = 256


class Receiver:
    """An HTTP server that stores all webhooks that it receives."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.append(self.path)
                receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                receiver.bodies.append(json.loads(body))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has this name
                return None

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/token?x=1"

    @property
    def statuses(self) -> list[tuple[str, str]]:
        return [(each["requestId"], each["status"]) for each in self.bodies]


@pytest.fixture
def receiver(sandbox: FacekiSandbox) -> Iterator[Receiver]:
    made = Receiver()
    thread = Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    sandbox.settings.webhook_url = made.url
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_a_webhook_is_sent_as_documented(
    sandbox: FacekiSandbox, receiver: Receiver, eventually: Eventually
) -> None:
    sandbox.settings.person = {"first_name": "Canary", "last_name": "Bird"}
    record = sandbox.decide(sandbox.create_link("order-1"), "ACCEPTED")
    eventually(lambda: receiver.bodies)
    assert receiver.bodies == [
        {"requestId": record["requestId"], "fullName": "Canary Bird", "status": "ACCEPTED", "kycData": record}
    ]
    assert receiver.paths == ["/hook/token?x=1"]
    assert receiver.headers[0]["content-type"] == "application/json"
    assert not any("signature" in name for name in receiver.headers[0])
    eventually(lambda: sandbox.counters.webhooks == {"200": 1})


def test_every_kind_of_decision_sends_a_webhook(
    sandbox: FacekiSandbox, receiver: Receiver, call: Caller, eventually: Eventually
) -> None:
    call.verify("review-1")
    call.verify("code-5004-1")
    call("POST", f"/kycverify/{sandbox.create_link()}", data={"decision": "DECLINED"})
    sandbox.add_record("from before")
    eventually(lambda: len(receiver.bodies) == 3)
    assert sorted(status for _, status in receiver.statuses) == ["DECLINED", "DECLINED", "REVIEW"]


def test_webhooks_of_one_request_keep_their_order(
    sandbox: FacekiSandbox, receiver: Receiver, eventually: Eventually
) -> None:
    records = [str(sandbox.decide(sandbox.create_link(), "REVIEW")["requestId"]) for _ in range(20)]
    for each in records:
        sandbox.decide(each, "ACCEPTED")
    eventually(lambda: len(receiver.bodies) == 40)
    for each in records:
        assert [status for name, status in receiver.statuses if name == each] == ["REVIEW", "ACCEPTED"]


def test_webhook_mode_twice_sends_two_webhooks(
    sandbox: FacekiSandbox, receiver: Receiver, eventually: Eventually
) -> None:
    sandbox.settings.webhook_mode = "twice"
    record = sandbox.decide(sandbox.create_link(), "ACCEPTED")
    eventually(lambda: len(receiver.bodies) == 2)
    assert receiver.statuses == [(record["requestId"], "ACCEPTED")] * 2


def test_webhook_mode_late_delays_the_webhook(
    sandbox: FacekiSandbox, receiver: Receiver, eventually: Eventually
) -> None:
    sandbox.settings.update({"webhook_mode": "late", "webhook_delay": 0.3})
    begun = time.monotonic()
    sandbox.decide(sandbox.create_link(), "ACCEPTED")
    eventually(lambda: receiver.bodies)
    assert time.monotonic() - begun > 0.29


def test_out_of_order(sandbox: FacekiSandbox, receiver: Receiver, eventually: Eventually) -> None:
    sandbox.settings.update({"webhook_mode": "out-of-order", "webhook_delay": 30})
    link = sandbox.create_link()
    for decision in ("REVIEW", "ACCEPTED"):
        sandbox.decide(link, decision)
    eventually(lambda: len(receiver.bodies) == 2)
    assert [status for _, status in receiver.statuses] == ["ACCEPTED", "REVIEW"]


def test_out_of_order_waits_for_a_second_webhook_until_its_delay(
    sandbox: FacekiSandbox, receiver: Receiver, eventually: Eventually
) -> None:
    sandbox.settings.update({"webhook_mode": "out-of-order", "webhook_delay": 0.1})
    sandbox.decide(sandbox.create_link(), "ACCEPTED")
    eventually(lambda: len(receiver.bodies) == 1)
    sandbox.decide(sandbox.create_link(), "DECLINED")
    eventually(lambda: len(receiver.bodies) == 2)


def test_mode_never_sends_only_fakes(
    sandbox: FacekiSandbox, receiver: Receiver, eventually: Eventually
) -> None:
    sandbox.settings.webhook_mode = "never"
    sandbox.decide(sandbox.create_link(), "ACCEPTED")
    sandbox.settings.webhook_mode = "normal"
    sandbox.send_fake_webhook("3f2b", "ACCEPTED", "NOBODY")
    eventually(lambda: receiver.bodies)
    assert receiver.bodies == [
        {"requestId": "3f2b", "fullName": "NOBODY", "status": "ACCEPTED", "kycData": {}}
    ]


def test_what_is_refused_is_not_sent_again(
    sandbox: FacekiSandbox, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.status = 503
    link = sandbox.create_link()
    sandbox.decide(link, "REVIEW")
    eventually(lambda: sandbox.counters.webhooks == {"503": 1})
    # Webhooks of one request are sent one after the other. If the sandbox repeated the first webhook, the repetition
    # would arrive before the second webhook.
    sandbox.decide(link, "ACCEPTED")
    eventually(lambda: receiver.statuses and receiver.statuses[-1][1] == "ACCEPTED")
    assert [status for _, status in receiver.statuses] == ["REVIEW", "ACCEPTED"]


def test_many_at_once(sandbox: FacekiSandbox, receiver: Receiver, eventually: Eventually) -> None:
    sandbox.settings.credit = None
    for _ in range(200):
        sandbox.decide(sandbox.create_link(), "ACCEPTED")
    eventually(lambda: len(receiver.bodies) == 200)
    assert len(set(receiver.statuses)) == 200


def test_a_reset_drops_queued_webhooks(
    sandbox: FacekiSandbox, receiver: Receiver, eventually: Eventually
) -> None:
    late = {"webhook_mode": "late", "webhook_delay": 0.2, "webhook_url": receiver.url}
    sandbox.settings.update(late)
    # Webhooks with the same request id arrive in their order. So if the first webhook were sent, it would arrive first.
    sandbox.webhooks.send("r-1", {"number": 1})
    sandbox.reset()
    sandbox.settings.update(late)
    sandbox.webhooks.send("r-1", {"number": 2})
    eventually(lambda: {"number": 2} in receiver.bodies)
    assert receiver.bodies == [{"number": 2}]


def test_a_webhook_from_before_a_reset_is_not_counted_after_it() -> None:
    counted: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        sender = WebhookSender(Settings(webhook_url=url), counted.append)
        sender.start()
        sender.send("r-1", {})
        line, _ = listener.accept()
        sender.clear()
        line.close()
        # The second webhook has the same request id, so it is sent after the first webhook is finished.
        sender.send("r-1", {})
        listener.accept()[0].close()
        sender.stop()
    assert counted == ["no answer"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x",
        "http://127.0.0.1:99999/x",
        "https://127.0.0.1:9/x",
        "http://127.0.0.1:9/é",
        pytest.param(f"http://{'x' * 64}.example/", id="a label that is too long"),
    ],
)
def test_an_unreachable_receiver_is_counted(url: str) -> None:
    assert post(url, b"{}") == "no answer"
