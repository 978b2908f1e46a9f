# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Wait with a time limit in the event loop of Airflow's API server, which other code possibly blocks."""

from __future__ import annotations

import asyncio
import math
from typing import Any


async def ends_within(future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a future, and return whether it ended in time. The future is not cancelled.

    While other code of Airflow blocks the event loop, the time does not pass, because the result possibly waits in a
    socket or in another thread. Therefore the wait consists of waits of at most one second each. However long the event
    loop is blocked, this ends only one of them.

    :param future: Future or task.
    :param seconds: Maximum wait.
    """
    steps = math.ceil(seconds)
    for _ in range(steps):
        if (await asyncio.wait({future}, timeout=seconds / steps))[0]:
            return True
    return False
