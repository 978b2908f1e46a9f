# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does a task that hands its wait to the triggerer make of what comes back through the database?"""

from __future__ import annotations

import math
import time
from datetime import timedelta

#: Seconds that Airflow's own timeout of a deferral comes after ours: it is the net for a triggerer that is gone.
DEFERRAL_SLACK = 60.0


def net(deadline: float) -> timedelta:
    """Return Airflow's own timeout for a wait until the Unix time ``deadline``."""
    return timedelta(seconds=max(0.0, deadline - time.time()) + DEFERRAL_SLACK)


def moment(value: object) -> float | None:
    """Return a Unix time that was handed to Airflow with a deferral; ``None`` if it was lost on its way."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
