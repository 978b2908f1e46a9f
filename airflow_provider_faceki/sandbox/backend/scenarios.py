# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The outcome of a verification, which is selected by the beginning of the record identifier.

- `accepted-…`, `declined-…` and `review-…` select the decision.
- `decision-WORD-…` selects any word as the decision, for tests with an unknown decision.
- `code-5004-…` selects an error code.
- `slow-…` or `slow-2.5-…` before one of these prefixes adds a pause of 3 s or 2.5 s before the answer.

All other identifiers select ACCEPTED.
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
    """The outcome of one verification.

    :param decision: the decision of the record.
    :param code: the error code of the answer. If None, the answer contains a decision.
    :param pause: the time in seconds before the answer.
    """

    decision: str = ACCEPTED
    code: int | None = None
    pause: float = 0.0


def is_decision(word: str) -> bool:
    """Return whether a text has the form of a decision: a word in capital letters, possibly with underscores."""
    return re.fullmatch(r"[A-Z][A-Z_]*", word) is not None


def scenario_of(record_identifier: str) -> Scenario:
    """Return the scenario that a record identifier selects."""
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
