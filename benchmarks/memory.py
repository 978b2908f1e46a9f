# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Memory of this process, now and at its peak, in MiB as the kernel counts (proc(5))."""

from __future__ import annotations

from pathlib import Path

_PROCESS = Path("/proc/self")


def resident() -> float:
    """Return what it has in memory now."""
    return _status("VmRSS")


def peak() -> float:
    """Return the most that it has had since its start, or since :func:`forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Set the kernel's mark of the largest size back to the present one."""
    (_PROCESS / "clear_refs").write_text("5")


def _status(field: str) -> float:
    lines = (_PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024
