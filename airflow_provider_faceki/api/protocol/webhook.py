# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Parser of webhook bodies. It returns the id of a verification and the unverified decision.

https://docs.faceki.com/data-fields/verification-data/ekyc-webhook-structure documents an object with ``requestId``,
``fullName``, ``status`` and ``kycData``. FACEKI does not sign webhooks, so the content is possibly forged. The parser
returns only the id and the decision, and discards the personal data. To confirm the decision, the caller has to fetch
the record from FACEKI by the id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl

from airflow_provider_faceki.api.models import OTHER, Decision
from airflow_provider_faceki.api.protocol.fields import describe, embedded, field
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.values import UUID_PATTERN, Json, as_word

#: Maximum number of fields in a form-encoded body. The maximum is sufficient, because a webhook of FACEKI has four
#: fields.
MAX_FORM_FIELDS = 100
#: Maximum number of fields in a body. The fields of the outermost JSON object are counted, and the fields of the
#: objects directly inside the outermost object. A webhook of FACEKI has about 30 such fields. The limit is needed,
#: because the receiver searches the fields on the event loop of the API server, and the search of very many fields
#: would block the event loop.
MAX_FIELDS = 500


class InvalidWebhookError(ValueError):
    """The body is not a webhook of FACEKI. The error message says why. It names fields of the body, but no values."""


@dataclass(frozen=True, slots=True)
class WebhookNotification:
    """A message that FACEKI has decided a verification. The message is possibly forged.

    Create it with :meth:`of` or :func:`parse_webhook`.

    :param request_id: FACEKI's id of the verification, in lower case.
    :param status: The decision in the webhook, in upper case. An undocumented decision becomes ``OTHER``, because a
        sender can send any text, for example a person's name.
    """

    request_id: str
    status: str

    @classmethod
    def of(cls, request_id: object, status: object) -> WebhookNotification:
        """Create a notification from the request id and the decision in a webhook.

        Both values can be in upper or lower case.

        :param status: The decision.
        :raises InvalidWebhookError: if ``request_id`` is not a UUID, or ``status`` is not a single word. A word begins
            with a letter, and has at most 40 letters, digits, ``-`` and ``_``.
        """
        if not isinstance(request_id, str) or not re.fullmatch(UUID_PATTERN, request_id):
            raise InvalidWebhookError("requestId is not a UUID")
        word = as_word(status)
        if word is None or word != status or word.startswith("_"):
            raise InvalidWebhookError(
                "status is not a word (a letter, and then at most 39 letters, digits, - and _)"
            )
        return cls(request_id.lower(), word.upper() if word.upper() in Decision.__members__ else OTHER)

    @property
    def extra(self) -> dict[str, str]:
        """Value of the field ``extra`` of the Airflow asset event that is created for this notification."""
        return {"request_id": self.request_id, "status": self.status}


def parse_webhook(body: bytes, service: Service = FACEKI) -> WebhookNotification:
    """Parse a webhook body and return the request id and the decision.

    FACEKI documents a JSON object. These other forms are accepted too: a list with one object, a nested object (such as
    ``data``), a form-encoded body, and other spellings of the field names.

    :param service: Settings that contain the names of the fields for the request id and the decision.
    :raises InvalidWebhookError: if the body is neither JSON nor a form, or if the request id or the decision is
        missing.
    """
    found = _read(body, service)
    # The body contains personal data. Error trackers report the local variables of each function through which an
    # exception passes, and also the cause of the exception. Therefore `_read` raises no exception, but returns the text
    # of the error. This function raises the exception after it has emptied `body`.
    body = b""
    if isinstance(found, str):
        raise InvalidWebhookError(found)
    return found


def _read(body: bytes, service: Service) -> WebhookNotification | str:
    """Return the notification in the webhook body, or a text with the reason why the body is not a webhook."""
    document = _parse(body)
    if document is None:
        return "the body is neither a JSON object nor a form"
    if sum(map(len, _holders(document))) > MAX_FIELDS:
        return f"the body has more than {MAX_FIELDS} fields"
    request_id, status = _find(document, service)
    try:
        return WebhookNotification.of(request_id, status)
    except InvalidWebhookError as error:
        return f"{error}; the body is {describe(document)}"


def _parse(body: bytes) -> dict[str, Json] | None:
    # The body is parsed without the limits of `parse_json`: only two texts of it are used, so numbers such as NaN do no
    # harm.
    try:
        document: Json = json.loads(body)
    except (ValueError, RecursionError):
        document = _parse_form(body)
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    return document if isinstance(document, dict) else None


def _parse_form(body: bytes) -> dict[str, Json] | None:
    """Return the fields of a form-encoded body, or ``None`` for any other body. A value in JSON format is parsed."""
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=MAX_FORM_FIELDS)
    except (ValueError, UnicodeDecodeError):
        return None
    return {name: embedded(text) for name, text in pairs}


def _find(document: dict[str, Json], service: Service) -> tuple[Json, Json]:
    """Return the request id and the decision in a webhook.

    A webhook is a JSON object that possibly contains other objects. The request id and the decision are read from the
    first object that contains both. If no object contains both, the first request id and the first decision are
    returned, even if they are in different objects.
    """
    ids: list[Json] = []
    statuses: list[Json] = []
    for holder in _holders(document):
        request_id = field(holder, service.webhook_request_id_field, "requestId")
        status = _status(holder, service)
        if request_id is not None and status is not None:
            return request_id, status
        ids += [request_id] if request_id is not None else []
        statuses += [status] if status is not None else []
    return next(iter(ids), None), next(iter(statuses), None)


def _holders(document: dict[str, Json]) -> Iterator[dict[str, Json]]:
    yield document
    for inner in document.values():
        if isinstance(inner, list) and len(inner) == 1:
            inner = inner[0]
        if isinstance(inner, dict):
            yield inner


def _status(holder: dict[str, Json], service: Service) -> Json:
    """Return the text of the decision in ``holder``, which is one object of a webhook.

    The field ``status`` of this object is possibly a boolean that reports success. Therefore other fields of the object
    are searched too.
    """
    names = (service.webhook_status_field, "status", "decision", "verification_status", "kyc_status")
    values = [value for name in names if isinstance(value := field(holder, name), str)]
    known = [value for value in values if value.upper() in Decision.__members__]
    return next(iter([*known, *values]), None)
