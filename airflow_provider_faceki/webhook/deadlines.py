# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Wait with a time limit in the event loop of Airflow's API server, which other code possibly blocks."""

from __future__ import annotations

import asyncio
import math
from typing import Any


async def ends_within(future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a future, and return whether it ended in time. The future is not cancelled.

    While other code of Airflow blocks the event loop, the future cannot end, even if its result has already arrived in
    a socket or in another thread. Therefore a blockage of any length counts as one second at most: the function waits
    in steps of at most one second, and a blockage ends only the current step.

    :param future: Future or task.
    :param seconds: Maximum wait in seconds. Blockages can make the wait longer.
    """
    steps = math.ceil(seconds)
    for _ in range(steps):
        if (await asyncio.wait({future}, timeout=seconds / steps))[0]:
            return True
    return False
