# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One process with many waits: ``python -m benchmarks.waiting NAME COUNT URL CERTIFICATE`` prints what they cost.

The waits begin spread over one interval; then everything is measured over another.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import clients
from benchmarks.loopback import RECORDS_PATH, trusting
from benchmarks.waits import HTTP, LATENCY, NAIVE, OURS

INTERVAL = 60.0
#: Seconds between two beats of the loop's pulse; what a beat comes late is how long the loop was blocked.
PULSE = 0.02

Poll = Callable[[], Awaitable[object]]


class Stopwatch:
    """When each poll was due, and how late its answer came beyond the server's own time."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.polls = 0
        self._due: dict[object, float] = {}

    @property
    def is_new(self) -> bool:
        """Whether the running task has not slept yet."""
        return asyncio.current_task() not in self._due

    def sleeping(self, seconds: float) -> None:
        """Note that the running task means to look again in so many seconds."""
        self._due[asyncio.current_task()] = asyncio.get_running_loop().time() + seconds

    def answered(self) -> None:
        """Note that the running task has its answer."""
        now = asyncio.get_running_loop().time()
        self.polls += 1
        due = self._due.get(asyncio.current_task())
        if due is not None:
            self.late.append(now - due - LATENCY)


async def _main(name: str, count: int, url: str, certificate: str) -> dict[str, float]:
    watch = Stopwatch()
    wait = {OURS: _ours, NAIVE: _naive, HTTP: _http}[name](watch, url, certificate)
    tasks = [asyncio.create_task(_after(INTERVAL * number / count, wait)) for number in range(count)]
    await asyncio.sleep(2.0)
    heap = _set_aside()
    memory = _resident()
    await asyncio.sleep(INTERVAL + 3.0)
    watch.late.clear()
    polls, cpu, began = watch.polls, time.process_time(), time.perf_counter()
    gaps = await _pulse(INTERVAL)
    took = time.perf_counter() - began
    found = {
        "cpu": 100 * (time.process_time() - cpu) / took,
        "polls": (watch.polls - polls) / took,
        # The first waits have warmed the pool; it is theirs whether ten wait or ten thousand.
        "memory": (_resident() - memory) / count,
        "late_p50": 1e3 * statistics.median(watch.late),
        "late_p99": 1e3 * statistics.quantiles(watch.late, n=100)[98],
        "gap_max": 1e3 * max(gaps),
        "heap": 1e3 * heap,
    }
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def _after(seconds: float, wait: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await wait()


def _set_aside() -> float:
    """Leave all that is loaded by now out of Python's garbage collections, and return the seconds that one of it takes.

    Nine tenths of it are Airflow itself, which in a triggerer is collected again and again in any case; the
    waits, and what they leave behind, are collected as ever.
    """
    began = time.perf_counter()
    gc.collect()
    took = time.perf_counter() - began
    gc.freeze()
    return took


async def _pulse(seconds: float) -> list[float]:
    gaps = []
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (now := loop.time()) < end:
        await asyncio.sleep(PULSE)
        gaps.append(loop.time() - now - PULSE)
    return gaps


def _ours(watch: Stopwatch, url: str, certificate: str) -> Callable[[], Awaitable[None]]:
    from airflow_provider_faceki.triggers import faceki, shared_poller

    poll, sleep = shared_poller.SharedPoller.poll, asyncio.sleep

    async def watched_poll(self: shared_poller.SharedPoller, endpoint: object) -> object:
        found = await poll(self, endpoint)  # type: ignore[arg-type]  # passed on as it came
        watch.answered()
        return found

    class WatchedAsyncio:
        """What the trigger takes for asyncio: the same, with a note on each sleep."""

        @staticmethod
        async def sleep(seconds: float) -> None:
            # The first pause only spreads waits that begin together. These are spread, as those of the peers are.
            seconds = 0.0 if watch.is_new else seconds
            watch.sleeping(seconds)
            await sleep(seconds)

    shared_poller.SharedPoller.poll = watched_poll  # type: ignore[method-assign,assignment]
    faceki.asyncio = WatchedAsyncio  # type: ignore[attr-defined,assignment]

    async def wait() -> None:
        trigger = faceki.FacekiKycDecisionTrigger(
            faceki_conn_id=clients.CONN_ID,
            link="open",
            deadline=time.time() + 86_400,
            poke_interval=INTERVAL,
            exponential_backoff=False,
        )
        async for _ in trigger.run():
            raise AssertionError("no wait has ended")

    return wait


def _polling(watch: Stopwatch, poll: Poll) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        while True:
            await poll()
            watch.answered()
            watch.sleeping(INTERVAL)
            await asyncio.sleep(INTERVAL)

    return wait


def _naive(watch: Stopwatch, url: str, certificate: str) -> Callable[[], Awaitable[None]]:
    import requests

    session = requests.Session()
    session.verify = certificate
    headers = {"authorization": f"Bearer {clients.fetch_token(session, base_url=url)}"}

    def fetch() -> object:
        answer = session.get(f"{url}{RECORDS_PATH}", params={"link": "open"}, headers=headers, timeout=30)
        return answer.json()

    return _polling(watch, lambda: asyncio.to_thread(fetch))


def _http(watch: Stopwatch, url: str, certificate: str) -> Callable[[], Awaitable[None]]:
    import requests

    # By name, for the checker has no peers.
    aiohttp: Any = import_module("aiohttp")
    hooks: Any = import_module("airflow.providers.http.hooks.http")
    session = requests.Session()
    session.verify = certificate
    headers = {"authorization": f"Bearer {clients.fetch_token(session, base_url=url)}"}
    hook = hooks.HttpAsyncHook(method="GET", http_conn_id=clients.HTTP_CONN_ID)
    context = trusting(Path(certificate))

    async def fetch() -> object:
        # A session for each poll, as the provider's own triggers make one; the TLS context is kept for it.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as own:
            answer = await hook.run(
                session=own, endpoint=RECORDS_PATH, data={"link": "open"}, headers=headers
            )
            return await answer.json()

    return _polling(watch, fetch)


def _resident() -> float:
    """Return this process's memory in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4.0


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))))
