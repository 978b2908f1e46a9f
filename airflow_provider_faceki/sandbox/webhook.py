# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How does FACEKI tell that somebody was verified? One unsigned POST, never repeated, in order or not.

https://docs.faceki.com/api-integration/verification-apis/ (data fields, eKYC webhook structure). Method, retries and
order are not documented; the modes play what a receiver has to bear.
"""

from __future__ import annotations

import heapq
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlsplit

from airflow_provider_faceki.sandbox.desk import Desk, Forged
from airflow_provider_faceki.sandbox.records import Record

SEND_SECONDS = 5.0
SENDERS = 8
MOST_WAITING = 10_000


@dataclass(order=True)
class _Post:
    """`bodies` go out one after the other."""

    due: float
    number: int
    url: str = field(compare=False)
    bodies: tuple[bytes, ...] = field(compare=False)
    lane: int = field(compare=False)
    generation: int = field(compare=False)


class WebhookSender:
    """A thread that keeps the time and a few that send. Nothing waits for it; what fails is not tried again."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._numbers = count()
        self._waiting: list[_Post] = []
        self._held: _Post | None = None
        self._wake = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._ended = False
        self._desk.state.announce = self._announce
        self._desk.forge = self._forge

    def stop(self) -> None:
        with self._wake:
            self._ended = True
            self._waiting.clear()
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(2 * SEND_SECONDS)
        self._thread = None

    def _announce(self, record: Record) -> None:
        if self._desk.settings.webhook_url is None:
            return
        body = {
            "requestId": record.request_id,
            "fullName": record.full_name,
            "status": record.decision,
            "kycData": record.document,
        }
        # Written out now: the record may change before it is sent.
        self._post(json.dumps(body).encode(), record.request_id, self._desk.settings.webhook_mode)

    def _forge(self, forged: Forged) -> None:
        body = {
            "requestId": forged.request_id,
            "fullName": forged.full_name,
            "status": forged.status,
            "kycData": {},
        }
        self._post(json.dumps(body).encode(), forged.request_id, "normal")

    def _post(self, body: bytes, request_id: str, mode: str) -> None:
        settings = self._desk.settings
        if settings.webhook_url is None or mode == "never":
            return
        late = settings.webhook_delay if mode in ("late", "out-of-order") else 0.0
        bodies = (body, body) if mode == "twice" else (body,)
        post = _Post(
            due=time.monotonic() + late,
            number=next(self._numbers),
            url=settings.webhook_url,
            bodies=bodies,
            lane=hash(request_id) % SENDERS,
            generation=self._desk.generation,
        )
        with self._wake:
            if mode == "out-of-order":
                post = self._swapped(post)
            if len(self._waiting) < MOST_WAITING:
                heapq.heappush(self._waiting, post)
            self._begin()
            self._wake.notify()

    def _swapped(self, post: _Post) -> _Post:
        """The first of two is held back, at most for its delay; the second takes it along behind itself."""
        held, self._held = self._held, post
        if held is None or held not in self._waiting:
            return post
        self._waiting.remove(held)
        heapq.heapify(self._waiting)
        self._held = None
        return _Post(
            time.monotonic(), post.number, post.url, post.bodies + held.bodies, post.lane, post.generation
        )

    def _begin(self) -> None:
        """Most sandboxes never send a webhook, so the threads come with the first."""
        if self._thread is None and not self._ended:
            self._thread = threading.Thread(target=self._run, name="faceki-sandbox-webhooks", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        # One thread a lane: what is told of one request keeps its order, one slow receiver holds up few others.
        lanes = [ThreadPoolExecutor(1, "faceki-sandbox-webhook") for _ in range(SENDERS)]
        try:
            while (post := self._next()) is not None:
                lanes[post.lane].submit(self._send, post)
        finally:
            for lane in lanes:
                lane.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> _Post | None:
        with self._wake:
            while not self._ended:
                now = time.monotonic()
                if self._waiting and self._waiting[0].due <= now:
                    return heapq.heappop(self._waiting)
                self._wake.wait(self._waiting[0].due - now if self._waiting else None)
        return None

    def _send(self, post: _Post) -> None:
        for body in post.bodies:
            if self._ended or post.generation != self._desk.generation:
                return
            outcome = deliver(post.url, body)
            with self._desk.lock:
                self._desk.counters.webhooks[outcome] += 1


def deliver(url: str, body: bytes) -> str:
    """One POST; the status it was answered with, or `no answer`. Redirects are not followed."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        line = kind(parts.hostname or "", parts.port, timeout=SEND_SECONDS)
    except (http.client.InvalidURL, ValueError):
        return "no answer"
    try:
        line.request(
            "POST", target, body, {"Content-Type": "application/json", "User-Agent": "faceki-sandbox"}
        )
        return str(line.getresponse().status)
    except (OSError, http.client.HTTPException):
        return "no answer"
    finally:
        line.close()
