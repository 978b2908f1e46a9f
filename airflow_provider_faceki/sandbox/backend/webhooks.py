# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Send one webhook for each new or changed decision, as an unsigned POST without retries.

The POST without retries is an assumption. FACEKI's documentation does not describe the HTTP method, the retries or the
order of webhooks. The setting `webhook_mode` simulates other cases that a receiver must handle: webhooks that are late,
sent twice, out of order, or never sent.

Source: https://docs.faceki.com/data-fields/verification-data/ekyc-webhook-structure .
"""

from __future__ import annotations

import heapq
import http.client
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import count
from urllib.parse import urlsplit

from airflow_provider_faceki.sandbox.backend.clock import real_monotonic
from airflow_provider_faceki.sandbox.dialects import dialect_of
from airflow_provider_faceki.sandbox.settings import Settings

SEND_TIMEOUT_SECONDS = 5.0
SENDER_THREADS = 8
MAX_QUEUED = 10_000


@dataclass(order=True)
class _Delivery:
    """One queued delivery of one or more webhooks.

    :param due: the time of sending, on the system's monotonic clock, in seconds.
    :param number: a sequence number. Deliveries with the same `due` are sent in the order of their numbers.
    :param url: the URL of the receiver.
    :param bodies: the bodies of the webhooks, each with its content type. They are sent one after the other.
    :param lane: the index of the thread that sends this delivery.
    :param generation: the number of calls of `WebhookSender.clear` before the delivery was queued. A later call of
        `clear` drops the delivery, if it is not sent yet. If the POST of the delivery is already running, the result of
        the POST is not counted.
    """

    due: float
    number: int
    url: str = field(compare=False)
    bodies: tuple[tuple[bytes, str], ...] = field(compare=False)
    lane: int = field(compare=False)
    generation: int = field(compare=False)


class WebhookSender:
    """The sender of all webhooks of one sandbox.

    One thread waits until a webhook is due. `SENDER_THREADS` other threads send the webhooks. A request to the sandbox
    never waits for a webhook.

    :param settings: the settings of the sandbox: `webhook_url`, `webhook_mode` and `webhook_delay` are used.
    :param on_sent: a function that is called after each POST, in the thread that sent the POST, with the result of
        `post`. It is not called if `clear` was called during the POST.
    """

    def __init__(self, settings: Settings, on_sent: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_sent = on_sent
        self._numbers = count()
        self._queue: list[_Delivery] = []
        self._held: _Delivery | None = None
        self._changed = threading.Condition()
        self._stopped = True
        self._generation = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Make the sender accept webhooks.

        No thread starts yet. The threads start when the first webhook is queued, because most sandboxes send none.
        """
        self._stopped = False

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(2 * SEND_TIMEOUT_SECONDS)
        self._thread = None

    def clear(self) -> None:
        """Drop all webhooks that are not sent yet."""
        with self._changed:
            self._generation += 1
            self._queue.clear()

    def send(self, request_id: str, body: object, mode: str | None = None) -> None:
        """Queue a webhook.

        Do nothing if the setting `webhook_url` is None, if the sender is stopped, or if the mode (see `mode`) is
        `never`. If `MAX_QUEUED` deliveries wait already, the webhook is dropped.

        :param request_id: the request id of the verification. Webhooks with the same request id are sent one after the
            other. The mode `out-of-order` is an exception.
        :param body: the JSON value to send.
        :param mode: a value that replaces the setting `webhook_mode`, for example `late`. If None, the setting is used.
        """
        url, mode = self._settings.webhook_url, mode or self._settings.webhook_mode
        if url is None or mode == "never" or self._stopped:
            return
        # The body is serialized now, because the record possibly changes before the webhook is sent.
        content = dialect_of(self._settings.dialect).webhook_request(body)
        delay = self._settings.webhook_delay if mode in ("late", "out-of-order") else 0.0
        delivery = _Delivery(
            due=real_monotonic() + delay,
            number=next(self._numbers),
            url=url,
            bodies=(content, content) if mode == "twice" else (content,),
            lane=hash(request_id) % SENDER_THREADS,
            generation=self._generation,
        )
        with self._changed:
            if mode == "out-of-order":
                delivery = self._swap(delivery)
            if len(self._queue) < MAX_QUEUED:
                heapq.heappush(self._queue, delivery)
            self._ensure_thread()
            self._changed.notify()

    def _swap(self, delivery: _Delivery) -> _Delivery:
        """Reverse the order of two consecutive webhooks, for the mode `out-of-order`.

        Return the delivery that the caller must put into the queue:

        - First webhook: its delivery is returned unchanged. The delivery waits in the queue for the seconds of the
          setting `webhook_delay`. If no second webhook comes in this time, the first webhook is sent alone.
        - Second webhook, while the first webhook waits: the delivery of the first webhook is removed from the queue.
          The returned delivery is due immediately. It sends the second webhook, and after that the first webhook.
        """
        held, self._held = self._held, delivery
        if held is None or held not in self._queue:
            return delivery
        self._queue.remove(held)
        heapq.heapify(self._queue)
        self._held = None
        return replace(delivery, due=real_monotonic(), bodies=delivery.bodies + held.bodies)

    def _ensure_thread(self) -> None:
        if self._thread is None and not self._stopped:
            self._thread = threading.Thread(target=self._run, name="faceki-sandbox-webhooks", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        # A lane is an executor with exactly one thread. Webhooks with the same request id use the same lane, so they
        # are sent one after the other. The mode `out-of-order` is an exception. There are several lanes, so that a
        # webhook with a slow receiver does not delay all other webhooks.
        lanes = [ThreadPoolExecutor(1, "faceki-sandbox-webhook") for _ in range(SENDER_THREADS)]
        try:
            while (delivery := self._next()) is not None:
                lanes[delivery.lane].submit(self._deliver, delivery)
        finally:
            for lane in lanes:
                lane.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> _Delivery | None:
        """Wait for the next due delivery and return it. If the sender is stopped, return None."""
        with self._changed:
            while not self._stopped:
                now = real_monotonic()
                if self._queue and self._queue[0].due <= now:
                    return heapq.heappop(self._queue)
                self._changed.wait(self._queue[0].due - now if self._queue else None)
        return None

    def _deliver(self, delivery: _Delivery) -> None:
        for body, content_type in delivery.bodies:
            if self._stopped or delivery.generation != self._generation:
                return
            outcome = post(delivery.url, body, content_type)
            if delivery.generation == self._generation:
                self._on_sent(outcome)


def post(url: str, body: bytes, content_type: str = "application/json") -> str:
    """Send one webhook as a POST, and return the HTTP status of the response as text.

    If the URL is invalid, or the receiver sends no valid HTTP response, return `no answer`. Redirects are not followed.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Content-Type": content_type, "User-Agent": "faceki-sandbox"}
    try:
        with closing(kind(parts.hostname or "", parts.port, timeout=SEND_TIMEOUT_SECONDS)) as connection:
            connection.request("POST", target, body, headers)
            return str(connection.getresponse().status)
    # A ValueError is raised if the port is invalid, if the path is not ASCII, or if the host has no IDNA form.
    except (OSError, http.client.HTTPException, ValueError):
        return "no answer"
