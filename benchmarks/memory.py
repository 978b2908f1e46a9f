# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Read the resident memory of this process and its peak, in MiB, from the kernel (proc(5))."""

from __future__ import annotations

from pathlib import Path

_PROCESS = Path("/proc/self")


def resident() -> float:
    """Return the current resident memory."""
    return _status("VmRSS")


def peak() -> float:
    """Return the peak resident memory since the start of the process, or since the last call of :func:`forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Set the peak of the resident memory, which the kernel records for this process, to the current value."""
    (_PROCESS / "clear_refs").write_text("5")


def _status(field: str) -> float:
    lines = (_PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024
