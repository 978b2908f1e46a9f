# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Which uvicorn serves the sandbox? One that says when it listens, and that needs no goodbyes when it ends."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from uvicorn import Config, Server

from airflow_provider_faceki.sandbox.app import application
from airflow_provider_faceki.sandbox.desk import Desk
from airflow_provider_faceki.sandbox.gate import Gate
from airflow_provider_faceki.sandbox.lines import Lines, protocol_with
from airflow_provider_faceki.sandbox.naps import nap

# Idle connections outlive the pauses between polls, as they do behind a load balancer.
KEEP_ALIVE_SECONDS = 65
# uvicorn counts ten ticks to a second.
_TICK_SECONDS = 0.1
_TICKS_A_DAY = 864_000


class Engine(Server):
    def __init__(self, config: Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def main_loop(self) -> None:
        """As uvicorn has it, but for the sleep."""
        tick = 0
        while not await self.on_tick(tick):
            tick = (tick + 1) % _TICKS_A_DAY
            await nap(_TICK_SECONDS)


def engine(
    desk: Desk,
    *,
    exposed: bool,
    tls: tuple[str, str] | None,
    log: Callable[[str], None],
    on_ready: Callable[[], None],
) -> Engine:
    # Faults on purpose look like errors to uvicorn, and the log belongs to whoever embeds the sandbox.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    lines = Lines()
    config = Config(
        application(desk, Gate(desk, lines.cut, log), exposed),
        http=protocol_with(lines),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=0,
        backlog=2048,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
    )
    config.load()  # reads the certificate now, where whoever gave it can be told
    return Engine(config, on_ready)
