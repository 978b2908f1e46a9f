# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The possible outcomes of a verification in the sandbox: decisions and FACEKI's error codes.

A test selects the outcome by the beginning of the record identifier:

- `accepted-…`, `declined-…` and `review-…` select the decision.
- `decision-WORD-…` selects WORD as the decision, for tests with an unknown decision. WORD consists of letters and
  underscores. The sandbox converts WORD to capital letters.
- `code-5004-…` selects the error code 5004.
- `slow-…` adds a pause of 3 s, and `slow-2.5-…` adds a pause of 2.5 s. The longest pause is 600 s. One of the other
  prefixes can follow, for example `slow-declined-…`. The sandbox pauses before it answers an API call that verifies
  images. The hosted page does not pause.

All other identifiers select ACCEPTED.

Source of the codes: https://docs.faceki.com/data-fields/verification-data/error-codes . The code 1000 and the codes
from 8001 upwards come from an official SDK.

The sandbox does not import the provider's table of error codes. If it did, a mistake in that table would affect both
the provider and the sandbox, and no test would find the mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

ACCEPTED = "ACCEPTED"
DECLINED = "DECLINED"
REVIEW = "REVIEW"
DECISIONS = (ACCEPTED, DECLINED, REVIEW)

NAMES: Final[dict[int, str]] = {
    0: "SUCCESS",
    1: "UNAUTHORIZED/INVALID URL",
    200: "OK",
    400: "BAD_REQUEST",
    500: "INTERNAL_SYSTEM_ERROR",
    1000: "INTERNAL_SYSTEM_ERROR",
    5001: "WORKFLOW_RULES_MISSING",
    5002: "INVALID_MISSING_REQUEST_FIELDS",
    5003: "NOT_ENOUGH_WALLET_CREDIT",
    5004: "SELFIE_LIVENESS_FAILED",
    5005: "DOCUMENT_FACE_MATCH_FAILED",
    5006: "REQUIRED_DOCUMENT_MISSING",
    5007: "MISMATCH_AS_PER_RULES",
    5008: "KYC_FAILED",
    5009: "LINK_LIMIT_REACH",
    5010: "EXPIRED_DOCUMENT",
    5011: "EXPIRY_NOT_FOUND",
    5012: "DOCUMENT_LIVENESS_FAILED",
    7001: "NO_RULES_FOR_COMPANY",
    8001: "NEED_REQUIRED_IMAGES",
    8002: "DOCUMENT_VERIFY_FAILED",
    8003: "PLEASE_TRY_AGAIN",
    8004: "FACE_CROPPED",
    8005: "FACE_TOO_CLOSED",
    8006: "FACE_NOT_FOUND",
    8007: "FACE_CLOSED_TO_BORDER",
    8008: "FACE_TOO_SMALL",
    8009: "POOR_LIGHT",
    8010: "ID_VERIFY_FAIL",
    8011: "DL_VERIFY_FAIL",
    8012: "PASSPORT_VERIFY_FAIL",
    8013: "DATA_NOT_FOUND",
    8014: "INVALID_VERIFICATION_LINK",
    8015: "VERIFICATION_LINK_EXPIRED",
    8016: "FAIL_TO_GENERATE_LINK",
    8017: "KYC_VERIFICATION_LIMIT_REACHED",
    8018: "SELFIE_MULTIPLE_FACES",
    8019: "FACE_BLUR",
}

# These error codes mean that the images were examined and rejected. A rejection is the result of a verification, so the
# sandbox stores a record and, by default, bills it. This is an assumption, because FACEKI does not document whether it
# bills a rejection.
REJECTIONS: Final = frozenset(
    {5004, 5005, 5007, 5008, 5010, 5011, 5012, 8002, *range(8004, 8013), 8018, 8019}
)

DEFAULT_SLOW_SECONDS = 3.0
MAX_SLOW_SECONDS = 600.0

_SLOW = re.compile(r"slow-(?:(\d+(?:\.\d+)?)-)?")
_DECISION = re.compile(r"(accepted|declined|review)(?:-|$)")
_WORD = re.compile(r"decision-([A-Za-z_]+)(?:-|$)")
_CODE = re.compile(r"code-(\d{1,5})(?:-|$)")


@dataclass(frozen=True)
class Scenario:
    """The outcome of one verification in the sandbox.

    :param decision: the decision of the record.
    :param code: the error code of the answer. If None, the answer contains a decision.
    :param pause: the pause in seconds before the answer. Only API calls that verify images make this pause.
    """

    decision: str = ACCEPTED
    code: int | None = None
    pause: float = 0.0


def is_decision(word: str) -> bool:
    """Return whether a text has the form of a decision: a word in capital letters, possibly with underscores."""
    return re.fullmatch(r"[A-Z][A-Z_]*", word) is not None


def scenario_of(record_identifier: str) -> Scenario:
    """Return the outcome of a verification with this record identifier.

    The beginning of the identifier selects the outcome. For example, `declined-42` selects the decision DECLINED.
    """
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


def name_of(code: int) -> str:
    return NAMES.get(code, f"CODE_{code}")
