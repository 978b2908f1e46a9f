# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The outcome of a verification, which its record identifier names, read from the left.

`accepted-…`, `declined-…`, `review-…`, `decision-WORD-…` (any word, to meet an unknown decision), `code-5004-…`.
`slow-…` or `slow-2.5-…` before any of these takes its time first. Everything else is ACCEPTED.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ACCEPTED = "ACCEPTED"
DECLINED = "DECLINED"
REVIEW = "REVIEW"
DECISIONS = (ACCEPTED, DECLINED, REVIEW)

DEFAULT_SLOW_SECONDS = 3.0
MAX_SLOW_SECONDS = 600.0

_SLOW = re.compile(r"slow-(?:(\d+(?:\.\d+)?)-)?")
_DECISION = re.compile(r"(accepted|declined|review)(?:-|$)")
_WORD = re.compile(r"decision-([A-Za-z_]+)(?:-|$)")
_CODE = re.compile(r"code-(\d{1,5})(?:-|$)")


@dataclass(frozen=True)
class Scenario:
    """What happens to a verification. `code` is None when FACEKI answers with a decision; `pause` is in seconds."""

    decision: str = ACCEPTED
    code: int | None = None
    pause: float = 0.0


def is_decision(word: str) -> bool:
    """Whether a text is written as a decision: a known one, or a word in capitals."""
    return re.fullmatch(r"[A-Z][A-Z_]*", word) is not None


def scenario_of(record_identifier: str) -> Scenario:
    """Return what a record identifier asks for."""
    pause = 0.0
    slow = _SLOW.match(record_identifier)
    if slow:
        pause = min(float(slow[1] or DEFAULT_SLOW_SECONDS), MAX_SLOW_SECONDS)
        record_identifier = record_identifier[slow.end() :]
    if found := _CODE.match(record_identifier):
        return Scenario(DECLINED, int(found[1]), pause)
    if found := _DECISION.match(record_identifier) or _WORD.match(record_identifier):
        return Scenario(found[1].upper(), None, pause)
    return Scenario(pause=pause)
