# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run one benchmark by ``python -m benchmarks.one NAME DIRECTORY``, and write its result to DIRECTORY/rows.json.

Each benchmark runs in a separate process, so that imports and caches of another benchmark do not affect it.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    """Run the benchmark that the command line names, and write the rows of its result table."""
    signal.signal(signal.SIGTERM, _leave)
    name, directory = sys.argv[1], Path(sys.argv[2])
    rows = importlib.import_module(f"benchmarks.{name}").measure(directory)
    (directory / "rows.json").write_text(json.dumps([row.to_dict() for row in rows]), encoding="utf-8")


def _leave(number: int, frame: FrameType | None) -> None:
    # The handler of SIGTERM raises an exception, so that `finally` blocks end the processes that the benchmark has
    # started.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
