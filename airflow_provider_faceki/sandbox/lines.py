# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How is a connection cut, the way a network cuts it? uvicorn offers no such thing, so its protocol keeps a list."""

from __future__ import annotations

import asyncio
import socket
import struct

from uvicorn.protocols.http.h11_impl import H11Protocol

# On, zero seconds: close() drops what is unsent and sends RST, so that the client sees a reset, not an end.
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Lines:
    """The open connections of one server, by the client's address."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], asyncio.Transport] = {}

    def opened(self, client: tuple[str, int] | None, transport: asyncio.Transport) -> None:
        if client is not None:
            self._open[client] = transport

    def closed(self, client: tuple[str, int] | None) -> None:
        if client is not None:
            self._open.pop(client, None)

    def cut(self, client: tuple[str, int] | None, reset: bool = True) -> None:
        """End the connection at once; with `reset` rudely."""
        transport = self._open.get(client) if client is not None else None
        if transport is None:
            return
        if not reset:
            transport.close()
            return
        line = transport.get_extra_info("socket")
        if line is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()


def protocol_with(lines: Lines) -> type[H11Protocol]:
    """uvicorn's own protocol, which also tells `lines` who comes and goes."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
            super().connection_made(transport)
            # Whoever configures logging after us (Airflow 3 does) turns uvicorn's own request log on again, and that
            # prints links and queries.
            self.access_log = False
            lines.opened(self.client, transport)

        def connection_lost(self, exc: Exception | None) -> None:
            lines.closed(self.client)
            super().connection_lost(exc)

    return Protocol
