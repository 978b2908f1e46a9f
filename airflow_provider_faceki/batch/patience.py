# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Storages fail now and then: what cannot be done without is asked for again. Much takes long: whoever waits for it
looks up now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Pauses in seconds before a storage that failed is asked again.
PAUSES = (0.5, 1.0, 2.0, 4.0)
#: Things after which somebody looks up who goes through many.
THINGS_BETWEEN_LOOKS = 1000


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


def looking_up(things: Iterable[T], look: Callable[[], object]) -> Iterator[T]:
    """Yield ``things``, and look up after every thousand of them, such as for whether the task is killed."""
    for number, thing in enumerate(things, 1):
        yield thing
        if number % THINGS_BETWEEN_LOOKS == 0:
            look()
