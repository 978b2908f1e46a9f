# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The call that fetches records, and the parser of all answers with records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from airflow_provider_faceki.api.arguments import check_exactly_one, check_not_link, path_segment
from airflow_provider_faceki.api.errors import (
    CHECK_ADVICE,
    NotFoundError,
    UnexpectedResponseError,
    ValidationError,
)
from airflow_provider_faceki.api.models import VerificationRecord, is_record
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.fields import field, find_objects, has_field, holds_field, says_none
from airflow_provider_faceki.api.protocol.messages import ACCEPT_JSON, HttpRequest, Json
from airflow_provider_faceki.api.service import FACEKI, FILTER_PLACEHOLDERS, Service
from airflow_provider_faceki.api.values import as_link_id, check_identifier, is_missing

#: Identifier that FACEKI's React Native SDK sends if an app sets no identifier. Only :class:`FetchRecords` accepts it,
#: so that the records of such an app can be fetched. The other calls with a parameter ``record_identifier`` refuse it.
SDK_MISSING_IDENTIFIER = "undefined"

#: Advice in the error message for an answer that contains null in the place of records.
NULL_ADVICE = (
    "If FACEKI gives this answer for an id that has no record, set null_result to no_record in the "
    "Connection's extra: `airflow faceki check` finds out whether it does. Otherwise check "
    "records_path"
)

# Usual status words for a verification that has no decision yet. No public source contains the words that FACEKI uses.
# A record with one of these words is accepted as a record without a decision. A documented decision is accepted as a
# decision. Any other status word raises an error, because the word is possibly an undocumented decision.
_PENDING_WORDS = frozenset(
    {
        *("PENDING", "IN_PROGRESS", "INPROGRESS", "IN PROGRESS", "PROCESSING"),
        *("INITIATED", "STARTED", "CREATED", "NEW", "OPEN"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FetchRecords:
    """Fetch the records of one verification, one link or one person.

    https://docs.faceki.com/api-integration/verification-apis/fetch-records

    Exactly one filter is required, because FACEKI's behaviour without a filter or with several filters is undocumented.
    If FACEKI reports that no record exists, the result is an empty tuple. FACEKI reports this by an empty list, by code
    8013, or by HTTP status 404 with a body in one of FACEKI's JSON formats (envelopes). If the setting ``null_result``
    is ``no_record``, ``null`` also means that no record exists.

    :param request_id: FACEKI's id of one verification.
    :param link: Link id.
    :param record_identifier: Your own id of the verification.
    :param face_id: FACEKI's id of a person.
    :raises ValidationError: if no filter or more than one filter is set, or if the value is not a valid id.
    """

    reads_records: ClassVar[bool] = True

    request_id: str | None = None
    link: str | None = None
    record_identifier: str | None = None
    face_id: str | None = None

    def __post_init__(self) -> None:
        name = check_exactly_one(**{name: getattr(self, name) for name in FILTER_PLACEHOLDERS})
        if self.record_identifier != SDK_MISSING_IDENTIFIER:
            check_identifier(name, getattr(self, name))

    @classmethod
    def parse(
        cls,
        *,
        request_id: object = None,
        link: object = None,
        record_identifier: object = None,
        face_id: object = None,
    ) -> FetchRecords:
        """Return the call for values that come from a user or from another task. Error texts never contain a link.

        :param link: Link id, URL of the hosted page, or a mapping with the key ``link``, such as the output of the task
            that created the link.
        :raises ValidationError: if no filter or more than one filter is set, or if a value has a wrong form. For
            example, a URL is not a ``request_id``.
        """
        ids: dict[str, Any] = {
            "request_id": request_id,
            "record_identifier": record_identifier,
            "face_id": face_id,
        }
        for name, value in ids.items():
            check_not_link(name, value)
        return cls(link=None if link is None else _read_link(link), **ids)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        name, value = self._filter()
        path, query = _records_address(service, name, value)
        return HttpRequest(
            "GET", f"{service.base_url}{path}", query=query, headers=ACCEPT_JSON, idempotent=True
        )

    def _filter(self) -> tuple[str, str]:
        values = ((name, getattr(self, name)) for name in FILTER_PLACEHOLDERS)
        return next((name, value) for name, value in values if value is not None)

    def read(self, answer: Payload) -> tuple[VerificationRecord, ...]:
        """Return the records in FACEKI's order. Omit records with another id than the requested id.

        :raises UnexpectedResponseError: if all records have another id, which means that FACEKI has ignored the filter.
            :func:`read_records` lists the other causes of this error.
        """
        records = read_records(answer)
        name, value = self._filter()
        meant = tuple(record for record in records if record.matches(name, value) is not False)
        if records and not meant:
            others = UnexpectedResponseError(
                "FACEKI returned only records of other verifications; check the Connection's "
                "records_path and the names of its record filters"
            )
            # FACEKI has ignored the filter. A repeated request would return the same wrong records. Therefore the error
            # is not transient, which means that a retry does not help.
            others.is_transient = False
            raise others
        return meant

    def empty(self, error: NotFoundError) -> tuple[VerificationRecord, ...]:
        """Return an empty tuple if ``error`` proves that FACEKI has no record.

        :raises UnexpectedResponseError: if ``error`` does not prove this; see :func:`check_is_stated`.
        """
        check_is_stated(error)
        return ()

    def __repr__(self) -> str:
        return f"<FetchRecords by {self._filter()[0]}>"


def _read_link(value: object) -> str:
    if isinstance(value, Mapping):
        if "link" not in value:
            raise ValidationError(
                "link is a mapping without 'link': give a link id or the link task's output"
            )
        value = value["link"]
    if isinstance(value, list | tuple):
        raise ValidationError(
            "link is a list: give one link; a task can be mapped over the list with .expand(link=...)"
        )
    if isinstance(value, str) and value.lstrip().startswith("{"):
        raise ValidationError(
            "link is the text of a mapping: give the link task's output itself (link=task.output), or its "
            "'link' in the template"
        )
    link = as_link_id(check_identifier("link", value))
    if link is None:
        raise ValidationError(
            "link is neither a link id, nor a hosted page's URL, nor the link task's output"
        )
    return link


def _records_address(service: Service, name: str, value: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the path and the query parameters of a request for records.

    :param name: Name of the filter, such as ``request_id``.
    :param value: Value of the filter.
    """
    given: str = getattr(service, f"{name}_filter")
    if not given.startswith("/"):
        return service.records_path, ((given, value),)
    placeholder = FILTER_PLACEHOLDERS[name]
    path, _, query = given.partition("?")
    pairs = tuple((key, text.replace(placeholder, value)) for key, text in parse_qsl(query))
    return path.replace(placeholder, path_segment(name, value)), pairs


def check_is_stated(error: NotFoundError) -> None:
    """Raise an error if an answer with the HTTP status 404 does not prove that FACEKI has no record.

    :raises UnexpectedResponseError: if the answer has none of FACEKI's JSON formats. In this case, a wrong URL or a
        proxy is a possible cause of the answer.
    """
    if error.is_stated:
        return
    raise UnexpectedResponseError(
        "the request for records was answered with HTTP 404, but not in a JSON format of FACEKI. So "
        "the answer does not mean that there is no record. If the error repeats, a path or filter in "
        "the Connection's extra is wrong (records_path, link_filter or another filter); "
        f"{CHECK_ADVICE}",
        http_status=error.http_status,
    )


def read_records(answer: Payload) -> tuple[VerificationRecord, ...]:
    """Return the records in FACEKI's answer. The nested objects of the answer are searched too.

    If the answer contains an empty list instead of records, the result is empty. If the answer contains ``null`` or an
    empty object instead of records, the result is empty only if the setting ``null_result`` is ``no_record``.

    :raises UnexpectedResponseError: if the answer does not show whether there are records, if an item in the list of
        records has another format, or if the decision of a record has an unknown format.
    """
    records = _find_records(answer)
    if records == () and not says_none(answer.document) and not answer.null_is_no_record:
        raise answer.unexpected(
            "FACEKI's answer to a request for records does not say whether there are records", NULL_ADVICE
        )
    if records is None:
        raise answer.unexpected(
            "FACEKI's answer to a request for records has an unknown format",
            "Check the Connection's API base URL and records_path",
        )
    if any(map(_hides_decision, records)):
        raise answer.unexpected("a record in FACEKI's answer has no decision in a known field and format")
    return records


def _find_records(answer: Payload) -> tuple[VerificationRecord, ...] | None:
    found = find_objects(answer.document, is_record)
    # If the content of the answer is null, the result is an empty tuple. `read_records` accepts this tuple only if the
    # setting `null_result` is `no_record`. If the answer has no body, the body was possibly lost. In this case, the
    # result is `None`, and `read_records` always raises an error.
    if found is None and answer.result is None and not answer.is_empty:
        return ()
    if found is None:
        return None
    return tuple(_with_decision(item, answer.document, is_alone=len(found) == 1) for item in found)


def _with_decision(item: dict[str, Json], document: Json, *, is_alone: bool) -> VerificationRecord:
    """Return ``item`` as a record.

    Some answers contain the decision beside the record and not inside it. If ``item`` is the only record in the answer
    and has no field ``decision``, the field ``decision`` of the outermost object is added to the record.
    """
    record = VerificationRecord(item)
    if (
        not is_alone
        or record.decision is not None
        or has_field(item, "decision")
        or not isinstance(document, dict)
    ):
        return record
    beside = VerificationRecord({"decision": field(document, "decision")}).decision
    return VerificationRecord({**item, "decision": beside.value}) if beside is not None else record


def _hides_decision(record: VerificationRecord) -> bool:
    """Return True if a record possibly contains a decision in an unknown field or format.

    The caller then raises an error. Without the error, the record would count as a record without a decision.
    """
    if record.decision is not None:
        return False
    if not has_field(record.document, "decision") and holds_field(dict(record.document), "decision"):
        return True
    word = field(record.document, "decision", "status", "verification_status", "kyc_status")
    is_pending = isinstance(word, str) and (is_missing(word) or word.strip().upper() in _PENDING_WORDS)
    return not (word is None or is_pending)
