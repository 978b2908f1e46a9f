# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does a webhook say, as far as anybody listens?

https://docs.faceki.com/api-integration/verification-apis/ (data fields, eKYC webhook structure): an object with
``requestId``, ``fullName``, ``status`` and ``kycData``. It is not signed, so all of it is a claim; two of its members
are worth keeping, to know what to ask FACEKI for. The rest, which is about a person, ends here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from airflow_provider_faceki.api.models import OTHER, Decision

_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
# The documented words are "common values", so others must pass; a sentence must not.
_STATUS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


class InvalidWebhookError(ValueError):
    """The body is not a webhook of FACEKI. The text names what is missing, and repeats nothing."""


@dataclass(frozen=True, slots=True)
class WebhookNotification:
    """A verification of which FACEKI is said to have decided something. Made by :meth:`of` or :func:`parse_webhook`.

    :param request_id: FACEKI's id of it, in small letters.
    :param status: The claimed decision in capitals; ``OTHER`` if it is none of the documented ones, since anybody may
        claim anything, a name too.
    """

    request_id: str
    status: str

    @classmethod
    def of(cls, request_id: object, status: object) -> WebhookNotification:
        """Return the hint that says this, the same one however it is spelled.

        :raises InvalidWebhookError: ``request_id`` is no UUID, or ``status`` no word.
        """
        if not isinstance(request_id, str) or not _UUID.fullmatch(request_id):
            raise InvalidWebhookError("requestId is no UUID")
        if not isinstance(status, str) or not _STATUS.fullmatch(status):
            raise InvalidWebhookError("status is no word of at most 40 letters, digits, - and _")
        word = status.upper()
        return cls(request_id.lower(), word if word in Decision.__members__ else OTHER)

    @property
    def extra(self) -> dict[str, str]:
        """What the asset event carries."""
        return {"request_id": self.request_id, "status": self.status}


def parse_webhook(body: bytes) -> WebhookNotification:
    """Return what the body says.

    :raises InvalidWebhookError: it is no JSON object with a UUID ``requestId`` and a word as ``status``.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        # Raised below, where the error takes along no context that holds the body.
        document = None
    if not isinstance(document, dict):
        raise InvalidWebhookError("the body is no JSON object")
    return WebhookNotification.of(document.get("requestId"), document.get("status"))
