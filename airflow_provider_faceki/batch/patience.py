# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Storages fail now and then. What cannot be done without is asked for again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Pauses in seconds before a storage that failed is asked again.
PAUSES = (0.5, 1.0, 2.0, 4.0)


def insist(operation: Callable[[], T], pause: Callable[[float], None] = time.sleep) -> T:
    """Return what a storage gives, even if it fails now and then.

    :param operation: What is asked of it; may be asked again.
    :param pause: Waits so many seconds.
    :raises OSError: it fails again and again.
    """
    for seconds in PAUSES:
        try:
            return operation()
        except OSError as error:
            log.warning("Storage fails, and is asked again: %s", type(error).__name__)
        pause(seconds)
    return operation()
