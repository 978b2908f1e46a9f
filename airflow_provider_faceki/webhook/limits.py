# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How often, how much, how long? What one caller may cost the API server."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

#: Largest body in bytes. FACEKI's holds one record as text, a few kilobytes.
MAX_BODY = 256 * 1024
#: Seconds in which a body has to have arrived; meanwhile it costs a socket, no thread.
BODY_SECONDS = 5.0
# So much of a body that is too large is read and thrown away, or its sender would never get to see the answer.
_THROWN_AWAY = 4 * 1024 * 1024

#: Calls of the right callers: so many at once, then so many a second. SQLite stores about fifty a second.
CALLS = (500.0, 50.0)
#: Calls refused with 401, and Connections looked up for nobody: so many at once, then so many a second.
REFUSALS = (60.0, 2.0)


class Bucket:
    """A token bucket. Used by one event loop, so nothing is locked."""

    def __init__(
        self, capacity: float, per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity = capacity
        self._per_second = per_second
        self._clock = clock
        self._left = capacity
        self._at = clock()

    def take(self) -> bool:
        """Take one, if there is one."""
        now = self._clock()
        self._left = min(self._capacity, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give(self) -> None:
        """Give one back."""
        self._left = min(self._capacity, self._left + 1)

    def wait(self) -> int:
        """Return the whole seconds after which there will be one."""
        return max(1, math.ceil((1 - self._left) / self._per_second))


class TooLarge(Exception):
    """The body has more than MAX_BODY bytes."""


class TooSlow(Exception):
    """The body did not arrive within BODY_SECONDS, or not to its end."""


async def read_body(request: Request) -> bytes:
    """Return the body.

    :raises TooLarge: whatever its Content-Length says.
    :raises TooSlow: it takes too long, or its sender has gone.
    """
    from starlette.requests import ClientDisconnect

    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size <= MAX_BODY:
                    body += piece
                elif size > _THROWN_AWAY:
                    break
    except TimeoutError:
        raise (TooLarge if size > MAX_BODY else TooSlow) from None
    except ClientDisconnect:
        raise TooSlow from None
    if size > MAX_BODY:
        raise TooLarge
    return bytes(body)
