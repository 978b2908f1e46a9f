# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The call that fetches records, and the reader of every answer that holds records."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from airflow_provider_faceki.api.errors import UnexpectedResponseError, ValidationError
from airflow_provider_faceki.api.models import VerificationRecord, is_of
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.http import ACCEPT_JSON, HttpRequest
from airflow_provider_faceki.api.service import FACEKI, FILTER_PLACEHOLDERS, Service
from airflow_provider_faceki.api.values import check_identifier

#: What FACEKI's React Native SDK sends as the identifier where its app gives none: such records can be fetched.
SENT_FOR_NOTHING = "undefined"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FetchRecords:
    """Fetch the records of a verification, a link, a person, or an id of your own.

    https://docs.faceki.com/api-integration/verification-apis/fetch-records

    Exactly one filter: what FACEKI does with none or several is undocumented. Nothing found is an empty
    tuple, whether FACEKI says so by an empty list, code 8013 or HTTP 404.

    :param request_id: FACEKI's id of one verification.
    :param link: Link id.
    :param record_identifier: Your own id.
    :param face_id: FACEKI's id of a person.
    :raises ValidationError: not exactly one of them is given, or it cannot be an id.
    """

    request_id: str | None = None
    link: str | None = None
    record_identifier: str | None = None
    face_id: str | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in self._filters().items() if value is not None]
        if len(given) != 1:
            told = " and ".join(given) or "none"
            raise ValidationError(
                f"give exactly one of request_id, link, record_identifier and face_id; found {told}"
            )
        if self.record_identifier != SENT_FOR_NOTHING:
            check_identifier(given[0], self._filters()[given[0]])

    def _filters(self) -> dict[str, str | None]:
        return {
            "request_id": self.request_id,
            "link": self.link,
            "record_identifier": self.record_identifier,
            "face_id": self.face_id,
        }

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the request."""
        name, value = self._filter()
        path, query = _records_address(service, name, value)
        return HttpRequest(
            "GET", f"{service.base_url}{path}", query=query, headers=ACCEPT_JSON, idempotent=True
        )

    def _filter(self) -> tuple[str, str]:
        return next((name, value) for name, value in self._filters().items() if value is not None)

    def read(self, answer: Payload) -> tuple[VerificationRecord, ...]:
        """Return the records in FACEKI's order, without those that say that they are of something else.

        :raises UnexpectedResponseError: so say all of them: the filter is not known where they come from.
        """
        records = read_records(answer)
        field, value = self._filter()
        meant = tuple(record for record in records if is_of(record, field, value) is not False)
        if records and not meant:
            others = UnexpectedResponseError(
                "FACEKI answers with records of others than asked for; is the Connection's records_path right?"
            )
            # Asked again it would say the same.
            others.is_transient = False
            raise others
        return meant

    def empty(self) -> tuple[VerificationRecord, ...]:
        """Return what stands for nothing found."""
        return ()

    def __repr__(self) -> str:
        return f"<FetchRecords by {self._filter()[0]}>"


def _records_address(service: Service, name: str, value: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return path and query of the request for records that are filtered by ``name``."""
    given = {
        "request_id": service.request_id_filter,
        "link": service.link_filter,
        "record_identifier": service.record_identifier_filter,
        "face_id": service.face_id_filter,
    }[name]
    placeholder = FILTER_PLACEHOLDERS[name]
    template = given if given.startswith("/") else service.records_path
    if placeholder in template:
        path, _, query = template.partition("?")
        pairs = tuple((key, text.replace(placeholder, value)) for key, text in parse_qsl(query))
        return path.replace(placeholder, quote(value, safe="")), pairs
    path = template.partition("{")[0].rstrip("/")
    return path, ((given, value),)


def read_records(answer: Payload) -> tuple[VerificationRecord, ...]:
    """Return the records of ``answer``; a lone object counts as one record, ``null`` as none.

    :raises UnexpectedResponseError: something in it is not a record.
    """
    result = answer.result
    # An answer without a body says nothing: its head may have been cut off.
    nothing = result is None and answer.document is not None
    items = result if isinstance(result, list) else [] if nothing else [result]
    records = [VerificationRecord(item) for item in items if isinstance(item, dict) and item]
    if len(records) != len([item for item in items if item != {}]):
        raise UnexpectedResponseError("FACEKI's answer to a record request holds something else")
    return tuple(records)
