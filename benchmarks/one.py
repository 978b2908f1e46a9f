# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does one benchmark say? ``python -m benchmarks.one NAME DIRECTORY`` writes its rows to DIRECTORY/rows.json.

A process for each: what one has imported, cached or warmed is not there for the next.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    """Take the measure."""
    signal.signal(signal.SIGTERM, _leave)
    name, directory = sys.argv[1], Path(sys.argv[2])
    rows = importlib.import_module(f"benchmarks.{name}").measure(directory)
    (directory / "rows.json").write_text(json.dumps([row.to_dict() for row in rows]), encoding="utf-8")


def _leave(number: int, frame: FrameType | None) -> None:
    # By the road on which whatever was started is ended.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
