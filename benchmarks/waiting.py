# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run many waits for a decision in one process, as a triggerer does, and print their CPU time, memory and delay.

The command is ``python -m benchmarks.waiting NAME COUNT URL CERTIFICATE``. Each wait polls once in each interval. The
starts of the waits are distributed evenly over the first interval. CPU time and delay are measured during a later
interval.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
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
#: To measure how long the event loop is blocked, a coroutine sleeps for this time in seconds again and again. If it
#: wakes up too late, the delay is the time for which the event loop was blocked.
PULSE = 0.02

Poll = Callable[[], Awaitable[object]]


class Stopwatch:
    """Record when each poll is due, and how late its answer is received.

    The lateness is the time from the due time to the answer, minus the latency of the server.
    """

    def __init__(self) -> None:
        self.late: list[float] = []
        self.polls = 0
        self._due: dict[object, float] = {}

    @property
    def is_new(self) -> bool:
        """True until the running asyncio task calls :meth:`sleeping` for the first time."""
        return asyncio.current_task() not in self._due

    def sleeping(self, seconds: float) -> None:
        """Record that the running asyncio task will poll again after this number of seconds."""
        self._due[asyncio.current_task()] = asyncio.get_running_loop().time() + seconds

    def answered(self) -> None:
        """Record that the running asyncio task has received the answer to its poll."""
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
        # This value is the memory for one wait. The memory of the connection pool must not be part of it, because that
        # memory does not depend on the number of waits. Therefore the start value `memory` was read after the first
        # waits had filled the pool. These first waits are one thirtieth of all waits. Their memory is missing in
        # the value.
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
    """Run one garbage collection, and exclude all objects that exist now from later collections.

    Nine tenths of the objects that exist now belong to Airflow itself. A triggerer scans the objects of Airflow in each
    garbage collection, with or without our provider. Therefore the CPU time of these scans must not be measured.
    Most waits start after this call. Later collections scan the objects of these waits as usual.

    :returns: Duration of the collection in seconds.
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

    # The provider logs one line for each poll of this benchmark. A triggerer would write it to the log of the task.
    logging.basicConfig(level=logging.INFO, filename=os.devnull)
    poll, sleep = shared_poller.SharedPoller.poll, asyncio.sleep

    async def watched_poll(self: shared_poller.SharedPoller, endpoint: object) -> object:
        found = await poll(self, endpoint)  # type: ignore[arg-type]  # The wrapper does not know the type.
        watch.answered()
        return found

    class WatchedAsyncio:
        """Replacement for the module ``asyncio`` in the trigger's module. It records each sleep of the trigger."""

        @staticmethod
        async def sleep(seconds: float) -> None:
            # The trigger sleeps once before its first poll. Because of this sleep, triggers that start at the same time
            # do not poll at the same time. The benchmark skips this sleep, because the function `_main` distributes the
            # starts of all compared programs in the same way.
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
            max_wait=None,
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

    # The modules of ``aiohttp`` and of the http provider are loaded by ``import_module``, because this project does not
    # depend on these packages. If a package is not installed, the type checker reports an import statement as an error.
    aiohttp: Any = import_module("aiohttp")
    hooks: Any = import_module("airflow.providers.http.hooks.http")
    session = requests.Session()
    session.verify = certificate
    headers = {"authorization": f"Bearer {clients.fetch_token(session, base_url=url)}"}
    hook = hooks.HttpAsyncHook(method="GET", http_conn_id=clients.HTTP_CONN_ID)
    context = trusting(Path(certificate))

    async def fetch() -> object:
        # This function creates a new session for each poll, because the triggers of the http provider do the same. All
        # sessions share one TLS context.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as own:
            answer = await hook.run(
                session=own, endpoint=RECORDS_PATH, data={"link": "open"}, headers=headers
            )
            return await answer.json()

    return _polling(watch, fetch)


def _resident() -> float:
    """Return the resident memory of this process in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4.0


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))))
