# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Every call of FACEKI once: its URL, its fields, and what its answer means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from airflow_provider_faceki.api.arguments import (
    check_choice,
    check_method,
    check_minutes,
    check_path,
    check_scalars,
    is_web_url,
)
from airflow_provider_faceki.api.errors import (
    FacekiError,
    LinkError,
    UnexpectedResponseError,
    ValidationError,
    WorkflowError,
)
from airflow_provider_faceki.api.models import VerificationRecord, is_of
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.http import JSON_HEADERS, HttpRequest, Json, json_body
from airflow_provider_faceki.api.protocol.session import AuthSession, Steps, call_once
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.values import check_identifier as check_identifier

#: What FACEKI's React Native SDK sends as the identifier where its app gives none: such records can be fetched.
SENT_FOR_NOTHING = "undefined"

_ACCEPT_JSON = JSON_HEADERS[1:]


@dataclass(frozen=True, slots=True, repr=False)
class KycLink:
    """A verification link. Whoever knows ``link`` or ``url`` can submit images for it, so ``repr`` hides
    both.

    :param link: Link id, by which records are found.
    :param url: Hosted page to send to the person, or ``None`` if FACEKI gave none.
    :param record_identifier: The caller's id, as it was sent.
    """

    link: str
    url: str | None
    record_identifier: str | None

    def __repr__(self) -> str:
        return "<KycLink>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GenerateKycLink:
    """Make a link under which one person is verified in a browser.

    https://docs.faceki.com/api-integration/verification-apis/generate-kyc-link

    Each call makes a new link, so it is not repeated once it may have arrived; a link that nobody uses is
    harmless.

    :param workflow_id: Workflow from the FACEKI portal (a UUID).
    :param record_identifier: Your own id of the person or case; sent as ``applicationId``. That it comes
        back as the record's ``record_identifier`` is an assumption.
    :param expires_in_minutes: Whole minutes until the link dies, at least 1. Default: FACEKI's own, which is
        not published.
    :param redirect_url: Where the browser goes afterwards; ``https`` or ``http``.
    :raises ValidationError: an argument cannot work.
    """

    workflow_id: str
    record_identifier: str | None = None
    expires_in_minutes: int | None = None
    redirect_url: str | None = None

    def __post_init__(self) -> None:
        check_identifier("workflow_id", self.workflow_id)
        if self.record_identifier is not None:
            check_identifier("record_identifier", self.record_identifier)
        check_minutes("expires_in_minutes", self.expires_in_minutes)
        if self.redirect_url is not None and not is_web_url(self.redirect_url):
            raise ValidationError("redirect_url must be an absolute http or https URL, or None")

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the request."""
        fields: dict[str, Json] = {
            "workflowId": self.workflow_id,
            "applicationId": self.record_identifier,
            "expiryTime": self.expires_in_minutes,
            "redirect_url": self.redirect_url,
        }
        return HttpRequest(
            "POST",
            f"{service.base_url}/kycverify/api/kycverify/kyc-verify-link",
            headers=JSON_HEADERS,
            body=json_body({name: value for name, value in fields.items() if value is not None}),
        )

    def read(self, answer: Payload) -> KycLink:
        """Return the link: its id is the envelope's ``data``, its URL stands beside that."""
        if not isinstance(answer.result, str) or not answer.result.strip():
            raise UnexpectedResponseError("FACEKI's answer to a link request holds no link id")
        url = answer.document.get("url") if isinstance(answer.document, dict) else None
        return KycLink(
            answer.result.strip(),
            url if isinstance(url, str) and is_web_url(url) else None,
            self.record_identifier,
        )

    def __repr__(self) -> str:
        # The caller's own id may be a person's number; the redirect may carry a key of its own.
        return f"<GenerateKycLink for workflow {self.workflow_id!r}>"


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
        query = {
            "requestId": self.request_id,
            "link": self.link,
            "record_identifier": self.record_identifier,
            "face_id": self.face_id,
        }
        return HttpRequest(
            "GET",
            f"{service.base_url}{service.records_path}",
            query=tuple((name, value) for name, value in query.items() if value is not None),
            headers=_ACCEPT_JSON,
            idempotent=True,
        )

    def read(self, answer: Payload) -> tuple[VerificationRecord, ...]:
        """Return the records in FACEKI's order, without those that say that they are of something else.

        :raises UnexpectedResponseError: so say all of them: the filter is not known where they come from.
        """
        records = read_records(answer)
        field, value = next((name, value) for name, value in self._filters().items() if value is not None)
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
        kind = next(name for name, value in self._filters().items() if value is not None)
        return f"<FetchRecords by {kind}>"


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


@dataclass(frozen=True, slots=True, repr=False)
class WorkflowRules:
    """What a workflow asks of a person. Only the fields that this package uses are named. ``repr`` shows nothing of
    them: among the others is the webhook's URL, which may carry a key.

    :param documents: Documents to show: ``ID Card``, ``Passport``, ``Driving License``.
    :param document_optional: Whether the person chooses one of them instead of showing all.
    :param document: The rules as FACEKI sent them.
    """

    documents: tuple[str, ...]
    document_optional: bool
    document: Mapping[str, Json]

    @property
    def stores_records(self) -> bool:
        """Whether FACEKI keeps what it finds out, so that it can be asked for later: ``store_data``, which has no
        documentation but stands in the rules that FACEKI's iOS SDK reads. Unknown counts as kept.
        """
        return self.document.get("store_data") is not False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GetWorkflowRules:
    """Fetch the rules of a workflow, by its id or, without any token, by a link made for it.

    Not in FACEKI's documentation; seen in its official SDKs.

    :param workflow_id: Workflow from the FACEKI portal.
    :param link: Link id.
    :raises ValidationError: not exactly one of them is given, or it cannot be an id.
    """

    workflow_id: str | None = None
    link: str | None = None

    def __post_init__(self) -> None:
        if (self.workflow_id is None) == (self.link is None):
            raise ValidationError("give exactly one of workflow_id and link")
        if self.link is None:
            check_identifier("workflow_id", self.workflow_id)
        else:
            check_identifier("link", self.link)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the request. By link it carries no token: the link itself is the right to ask."""
        rules = f"{service.base_url}/api/v3/workflows/rules"
        by_link = self.link is not None
        return HttpRequest(
            "GET",
            f"{rules}bylink" if by_link else rules,
            query=(("link" if by_link else "workflowId", self.link or self.workflow_id or ""),),
            headers=_ACCEPT_JSON,
            authenticated=not by_link,
            idempotent=True,
        )

    def read(self, answer: Payload) -> WorkflowRules:
        """Return the rules.

        :raises WorkflowError: FACEKI answers with none, which its React Native SDK takes for an unknown workflow.
        :raises LinkError: the same by a link.
        :raises UnexpectedResponseError: the answer holds something else.
        """
        rules = answer.result
        if rules is None and answer.document is not None:
            if self.link is not None:
                raise LinkError("FACEKI has no workflow rules for this link; is it right?")
            raise WorkflowError("FACEKI has no rules for this workflow; is the workflow id right?")
        if not isinstance(rules, dict) or not rules:
            raise UnexpectedResponseError(
                "FACEKI's answer holds no workflow rules; is the workflow id right?"
            )
        documents = rules.get("documents")
        names = documents if isinstance(documents, list) else []
        return WorkflowRules(
            tuple(name for name in names if isinstance(name, str)),
            rules.get("document_optional") is True,
            rules,
        )

    def __repr__(self) -> str:
        return f"<GetWorkflowRules by {'link' if self.link is not None else 'workflow_id'}>"


@dataclass(frozen=True, slots=True, repr=False)
class RawCall:
    """Any authenticated call of FACEKI that has no endpoint of its own, the older V2 API included.

    :param method: GET, HEAD, POST, PUT, PATCH or DELETE.
    :param path: Path below the base URL, beginning with ``/`` and without a query.
    :param params: Query parameters; values are text, numbers or booleans, ``None`` is left out.
    :param json: Document to send as JSON.
    :param data: Form fields to send URL-encoded; like ``params``, and not together with ``json``.
    :param idempotent: Whether it may be sent twice. Default: ``True`` for GET and HEAD alone, since FACEKI
        knows no idempotency keys and some calls cost credit.
    :raises ValidationError: an argument cannot work.
    """

    method: str
    path: str
    params: Mapping[str, str | int | float | bool | None] | None = None
    json: Json = None
    data: Mapping[str, str | int | float | bool | None] | None = None
    idempotent: bool | None = None

    def __post_init__(self) -> None:
        check_method("method", self.method)
        check_path("path", self.path)
        if self.json is not None and self.data is not None:
            raise ValidationError("give json or data, not both")
        check_scalars("params", self.params)
        check_scalars("data", self.data)
        check_choice("idempotent", self.idempotent)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the request."""
        body, headers = self._body()
        return HttpRequest(
            self.method.upper(),
            f"{service.base_url}{self.path}",
            query=_query(self.params or {}),
            headers=headers,
            body=body,
            idempotent=self.is_repeatable,
        )

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent twice."""
        return self.method.upper() in {"GET", "HEAD"} if self.idempotent is None else self.idempotent

    def steps(self, account: AuthSession) -> Steps[Json]:
        """Ask, and let an error say whether that may be done anew."""
        try:
            return (yield from call_once(account, self))
        except FacekiError as error:
            error.must_not_repeat = error.is_ambiguous and not self.is_repeatable
            raise

    def _body(self) -> tuple[bytes | None, tuple[tuple[str, str], ...]]:
        if self.json is not None:
            try:
                return json_body(self.json), JSON_HEADERS
            except (TypeError, ValueError, RecursionError):
                raise ValidationError("json holds something that JSON has no form for") from None
        if self.data is not None:
            form = ("content-type", "application/x-www-form-urlencoded")
            return urlencode(_query(self.data)).encode(), (form, *_ACCEPT_JSON)
        return None, _ACCEPT_JSON

    def read(self, answer: Payload) -> Json:
        """Return the unwrapped document."""
        return answer.result

    def __repr__(self) -> str:
        return f"<RawCall {self.method}>"


def _query(params: Mapping[str, str | int | float | bool | None]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _query_text(value)) for name, value in params.items() if value is not None)


def _query_text(value: str | int | float | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
