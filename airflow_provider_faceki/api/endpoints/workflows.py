# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The call that fetches the rules of a workflow, and functions that evaluate its result or its error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from airflow_provider_faceki.api.arguments import check_exactly_one
from airflow_provider_faceki.api.codes import REFUSED
from airflow_provider_faceki.api.errors import (
    AuthenticationError,
    FacekiError,
    InvalidRequestError,
    LinkError,
    NotFoundError,
    RateLimitError,
    UnexpectedResponseError,
    WorkflowError,
)
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.fields import as_flag, field, find_objects, has_field
from airflow_provider_faceki.api.protocol.messages import ACCEPT_JSON, HttpRequest, Json
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.values import check_identifier

# A JSON object with one of these fields contains the rules of a workflow.
_RULES_FIELDS = (
    *("documents", "document_optional", "liveness_type", "store_data", "face_match_score"),
    "allowedKycDocuments",
)
_NAME_FIELDS = ("name", "document", "documentName", "document_type", "type", "label", "title", "value")


@dataclass(frozen=True, slots=True, repr=False)
class WorkflowRules:
    """The rules of a workflow, such as the documents that a person has to show.

    Only the fields that this package uses have attributes. The ``repr`` hides all fields, because the webhook URL in
    the rules possibly contains a key.

    :param documents: Names of the documents that the person has to show, such as ``ID Card``, ``Passport`` and
        ``Driving License``.
    :param document_optional: Whether the person has to show only one of these documents instead of all documents.
    :param document: The rules as FACEKI sent them.
    """

    documents: tuple[str, ...]
    document_optional: bool
    document: Mapping[str, Json]

    @property
    def stores_records(self) -> bool:
        """Whether FACEKI stores records of the verifications with this workflow.

        The value comes from the field ``store_data`` of the workflow's rules. The field is undocumented, but FACEKI's
        iOS SDK reads it. If the field is missing or unreadable, the value is ``True``.
        """
        return as_flag(field(self.document, "store_data")) is not False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GetWorkflowRules:
    """Fetch the rules of a workflow by its id or by a link. A request by link needs no token.

    Source: FACEKI's official SDKs. The call is undocumented.

    :param workflow_id: Id of the workflow from the FACEKI portal.
    :param link: Id of a link that was created for the workflow.
    :raises ValidationError: if no argument or both arguments are set, or if the value is not a valid id.
    """

    workflow_id: str | None = None
    link: str | None = None

    def __post_init__(self) -> None:
        name = check_exactly_one(workflow_id=self.workflow_id, link=self.link)
        check_identifier(name, getattr(self, name))

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the request. A request by link has no token, because the link id itself authorises the request."""
        rules = f"{service.base_url}/api/v3/workflows/rules"
        by_link = self.link is not None
        return HttpRequest(
            "GET",
            f"{rules}bylink" if by_link else rules,
            query=(("link" if by_link else "workflowId", self.link or self.workflow_id or ""),),
            headers=ACCEPT_JSON,
            authenticated=not by_link,
            idempotent=True,
        )

    def read(self, answer: Payload) -> WorkflowRules:
        """Return the rules in FACEKI's answer.

        :raises WorkflowError: if the result of a request by workflow id is null. FACEKI's React Native SDK also
            interprets null as an unknown workflow.
        :raises LinkError: if the result of a request by link is null.
        :raises UnexpectedResponseError: if the answer contains no rules with a list of documents.
        """
        if answer.result is None and answer.document is not None:
            if self.link is not None:
                raise LinkError(
                    "FACEKI has no workflow rules for this link; check the link", http_status=answer.status
                )
            raise WorkflowError(
                "FACEKI has no rules for this workflow; check the workflow id", http_status=answer.status
            )
        rules = _find_rules(answer.document)
        if rules is None:
            raise answer.unexpected(
                "FACEKI's answer contains no workflow rules with a list of documents", "Check the workflow id"
            )
        return rules

    def __repr__(self) -> str:
        return f"<GetWorkflowRules by {'link' if self.link is not None else 'workflow_id'}>"


def are_records_stored(
    rules: WorkflowRules | None, fetch: Callable[[], WorkflowRules], *, is_decisive: bool = True
) -> bool:
    """Return ``False`` if the rules of a workflow say that FACEKI stores no records. Otherwise return ``True``.

    The caller has found no record of a verification that was possibly sent. If FACEKI stores no records, the missing
    record proves nothing, and the caller must not send the verification again.

    If the rules are unknown, the result is ``True``. The rules are unknown if FACEKI has no endpoint for them, if its
    answer is unreadable, or if the rules are not requested because ``is_decisive`` is false.

    :param rules: The rules, or ``None`` if an earlier request for them failed.
    :param fetch: Function that requests the rules once more. It is called only if ``rules`` is ``None`` and
        ``is_decisive`` is true.
    :param is_decisive: Whether the caller sends the verification again if this function returns ``True``. With
        ``False``, the caller does not send it now, so unknown rules are not requested once more.
    :raises FacekiError: if ``fetch`` fails for another reason than a missing endpoint or an unreadable answer.
    """
    if rules is None and is_decisive:
        # The rules are `None` in two cases: FACEKI has no endpoint for them, or the endpoint failed for a short time. A
        # second request shows which of these is the case.
        try:
            rules = fetch()
        except FacekiError as error:
            if not are_rules_missing(error):
                raise
    return rules is None or rules.stores_records


def are_rules_unavailable(error: FacekiError) -> bool:
    """Return True if a verification can go on although the request for the workflow's rules failed with ``error``.

    The result is ``True`` in these cases:

    - The endpoint of the rules is missing. FACEKI does not document this endpoint, which is known only from SDKs.
    - The service fails, or there is no answer.
    - The answer is unreadable.

    The verification does not need the rules, because FACEKI itself checks them during the verification.

    For all other errors, the result is ``False``, and the caller raises the error. HTTP 429 (too many requests) is one
    of these errors, because the service works and only requires a pause before the next request.

    :param error: Error of the request for the rules, after all retries of the request.
    """
    no_answer = error.is_transient and not isinstance(error, RateLimitError)
    return no_answer or are_rules_missing(error)


def are_rules_missing(error: FacekiError) -> bool:
    """Return True if the endpoint of a workflow's rules does not exist, or if its answer is unreadable.

    In both cases, another request would probably end with the same error, so the rules remain unknown. If the service
    is only down for some time, the result is ``False``, because a later request can return the rules.

    :param error: Error of the request for the rules, after all retries of the request.
    """
    # FACEKI uses the same code for a refused token and for an unknown URL. Only the HTTP status distinguishes them.
    no_such_url = (
        isinstance(error, AuthenticationError)
        and error.code == REFUSED
        and error.http_status not in {401, 403}
    )
    no_such_url |= isinstance(error, InvalidRequestError) and error.http_status in {404, 405}
    return no_such_url or isinstance(error, NotFoundError | UnexpectedResponseError)


def _find_rules(answer: Json) -> WorkflowRules | None:
    """Return the rules in an answer.

    The result is ``None`` if the answer contains no rules, or if the list of documents in the rules is missing or has
    an unknown format. An unknown format must not be treated as an empty list, because an empty list means that the
    workflow requires no documents.
    """
    found = find_objects(answer, lambda item: has_field(item, *_RULES_FIELDS))
    if not found:
        return None
    document = found[0]
    documents = _document_names(field(document, "documents", "allowedKycDocuments"))
    if documents is None:
        return None
    return WorkflowRules(documents, as_flag(field(document, "document_optional")) is True, document)


def _document_names(value: Json) -> tuple[str, ...] | None:
    """Return the names of the required documents, or ``None`` if the format of ``value`` is unknown.

    Accepted formats are a list of texts, a list of objects with a name, an object with names as keys and booleans as
    values, and one text with commas between the names.
    """
    # Only an empty list means that the workflow requires no document. An empty object or text has an unknown meaning.
    if isinstance(value, str):
        value = [text.strip() for text in value.split(",") if text.strip()] or None
    if value == {}:
        return None
    if isinstance(value, dict):
        flags = {name: as_flag(flag) for name, flag in value.items()}
        return tuple(name for name, flag in flags.items() if flag) if None not in flags.values() else None
    if not isinstance(value, list):
        return None
    names = [field(item, *_NAME_FIELDS) if isinstance(item, dict) else item for item in value]
    texts = tuple(name for name in names if isinstance(name, str) and name.strip())
    return texts if len(texts) == len(names) else None
