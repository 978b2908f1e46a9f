# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does a file hold before anybody asks what it means? Lines of bounded length, and rows that are values or a
problem."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

#: Longest line in bytes; a row of URIs is some hundred, so more is a file of another kind.
LONGEST_LINE = 1024 * 1024
#: What some programs put before the first line of UTF-8.
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that cannot be read, and why."""

    problem: str


Raw: TypeAlias = "Mapping[str, object] | Unreadable"


def lines(file: BinaryIO) -> Iterator[bytes | Unreadable]:
    """Yield the lines that are not blank; for one that is too long, what is wrong with it."""
    first = True
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            while not line.endswith(b"\n") and (line := file.readline(LONGEST_LINE)):
                pass
            yield Unreadable(f"the line is longer than {LONGEST_LINE} bytes")
        else:
            line = line.removeprefix(BOM) if first else line
            if line.strip():
                yield line
        first = False
