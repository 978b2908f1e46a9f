# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What becomes of a verification? Its record identifier says so, read from the left:

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

SLOW_SECONDS = 3.0
SLOWEST = 600.0

_SLOW = re.compile(r"slow-(?:(\d+(?:\.\d+)?)-)?")
_DECISION = re.compile(r"(accepted|declined|review)(?:-|$)")
_WORD = re.compile(r"decision-([A-Za-z_]+)(?:-|$)")
_CODE = re.compile(r"code-(\d{1,5})(?:-|$)")


@dataclass(frozen=True)
class Scenario:
    """`code` is None when FACEKI answers with a decision."""

    decision: str = ACCEPTED
    code: int | None = None
    pause: float = 0.0


def scenario_of(record_identifier: str) -> Scenario:
    pause = 0.0
    slow = _SLOW.match(record_identifier)
    if slow:
        pause = min(float(slow[1] or SLOW_SECONDS), SLOWEST)
        record_identifier = record_identifier[slow.end() :]
    if found := _CODE.match(record_identifier):
        return Scenario(DECLINED, int(found[1]), pause)
    if found := _DECISION.match(record_identifier) or _WORD.match(record_identifier):
        return Scenario(found[1].upper(), None, pause)
    return Scenario(pause=pause)
