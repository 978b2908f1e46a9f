# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""FACEKI's response codes, with their published names, their meanings and the error class of each.

All codes of this module are from two sources: FACEKI's documentation
(https://docs.faceki.com/data-fields/verification-data/error-codes), and FACEKI's own mobile SDKs, which still contain
the codes of the older V2 API. The only exception is the number 5012, which is an assumption.
"""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_faceki.api.errors import (
    AuthenticationError,
    InvalidRequestError,
    LinkError,
    NotFoundError,
    QuotaError,
    ResponseError,
    ServiceError,
    VerificationError,
    WorkflowError,
)


class Code(NamedTuple):
    """Description of one response code of FACEKI.

    :param name: Published name of the code.
    :param meaning: Meaning of the code, for error messages.
    :param error: Class of the error that is raised for the code.
    """

    name: str
    meaning: str
    error: type[ResponseError]


#: The codes that mean success.
SUCCESS_CODES = frozenset({0, 200, 201})

#: FACEKI's code "Unauthorized or invalid URL". It reports a refused token and also an unknown path.
REFUSED = 1

#: FACEKI's code for "no such record".
DATA_NOT_FOUND = 8013

#: The codes after which FACEKI's own SDKs ask the person for another selfie.
RETAKE_SELFIE = frozenset({5004, 8004, 8005, 8006, 8007, 8008, 8009, 8018, 8019})

CODES: dict[int, Code] = {
    # Codes in FACEKI's documentation.
    REFUSED: Code("UNAUTHORIZED", "token refused, or no such URL", AuthenticationError),
    400: Code("BAD_REQUEST", "malformed request", InvalidRequestError),
    422: Code("UNPROCESSABLE", "a field is missing or wrong", InvalidRequestError),
    500: Code("INTERNAL_SYSTEM_ERROR", "FACEKI failed", ServiceError),
    5001: Code("WORKFLOW_RULES_MISSING", "the workflow has no rules, or its id is wrong", WorkflowError),
    5002: Code("INVALID_MISSING_REQUEST_FIELDS", "a field is missing or wrong", InvalidRequestError),
    5003: Code("NOT_ENOUGH_WALLET_CREDIT", "the wallet is empty", QuotaError),
    5004: Code("SELFIE_LIVENESS_FAILED", "the selfie is not of a live person", VerificationError),
    5005: Code("DOCUMENT_FACE_MATCH_FAILED", "selfie and document differ", VerificationError),
    5006: Code("REQUIRED_DOCUMENT_MISSING", "a document of the workflow is missing", InvalidRequestError),
    5007: Code("MISMATCH_AS_PER_RULES", "the data breaks a rule of the workflow", VerificationError),
    5008: Code("KYC_FAILED", "verification failed; the portal tells why", VerificationError),
    5009: Code("LINK_LIMIT_REACH", "the link is used up", LinkError),
    5010: Code("EXPIRED_DOCUMENT", "the document has expired", VerificationError),
    5011: Code("EXPIRY_NOT_FOUND", "no expiry date can be read", VerificationError),
    # FACEKI's documentation contains the name DOCUMENT_LIVENESS_FAILED without a number. The number 5012 is an
    # assumption, because 5012 is the next free number.
    5012: Code("DOCUMENT_LIVENESS_FAILED", "the document is not an original", VerificationError),
    8004: Code("FACE_CROPPED", "the face is cut off", VerificationError),
    8005: Code("FACE_TOO_CLOSED", "the face is too close", VerificationError),
    8006: Code("FACE_NOT_FOUND", "no face in the image", VerificationError),
    # Codes that only FACEKI's SDKs contain.
    1000: Code("INTERNAL_SYSTEM_ERROR", "FACEKI failed", ServiceError),
    7001: Code("NO_RULES_FOR_COMPANY", "the company has no rules (V2)", WorkflowError),
    8001: Code("NEED_REQUIRED_IMAGES", "images are missing", InvalidRequestError),
    8002: Code("DOCUMENT_VERIFY_FAILED", "the document did not pass", VerificationError),
    8003: Code("PLEASE_TRY_AGAIN", "run the verification again", ServiceError),
    8007: Code("FACE_CLOSED_TO_BORDER", "the face is at the border", VerificationError),
    8008: Code("FACE_TOO_SMALL", "the face is too small", VerificationError),
    8009: Code("POOR_LIGHT", "too little light", VerificationError),
    8010: Code("ID_VERIFY_FAIL", "the identity card did not pass", VerificationError),
    8011: Code("DL_VERIFY_FAIL", "the driving licence did not pass", VerificationError),
    8012: Code("PASSPORT_VERIFY_FAIL", "the passport did not pass", VerificationError),
    DATA_NOT_FOUND: Code("DATA_NOT_FOUND", "no such record", NotFoundError),
    8014: Code("INVALID_VERIFICATION_LINK", "no such link", LinkError),
    8015: Code("VERIFICATION_LINK_EXPIRED", "the link has expired", LinkError),
    8016: Code("FAIL_TO_GENERATE_LINK", "FACEKI could not make a link", ServiceError),
    8017: Code("KYC_VERIFICATION_LIMIT_REACHED", "a verification limit is reached", QuotaError),
    8018: Code("SELFIE_MULTIPLE_FACES", "more than one face", VerificationError),
    8019: Code("FACE_BLUR", "the face is blurred", VerificationError),
}


#: The number of each code, by its published name.
CODE_BY_NAME = {code.name: number for number, code in CODES.items()}


def code_name(code: int) -> str | None:
    """Return the published name of ``code``, or ``None`` if no source contains the code."""
    known = CODES.get(code)
    return known.name if known else None
