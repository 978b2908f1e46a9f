# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How does a test wait for something that happens elsewhere? Never for ever."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(done: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until done() is true; fail when that takes longer."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain"
        time.sleep(0.02)
