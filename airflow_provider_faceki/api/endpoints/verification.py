# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The billed call: verify one person, once.

A second verification is billed again, and FACEKI knows no idempotency keys. The caller's ``record_identifier`` makes
the call safe: whatever happens to the answer, the record can be looked up by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from airflow_provider_faceki.api.arguments import DEFAULT_LOOKUP_TIMEOUT_SECONDS, check_seconds
from airflow_provider_faceki.api.codes import RETAKE_SELFIE
from airflow_provider_faceki.api.endpoints.records import FetchRecords, check_is_stated, read_records
from airflow_provider_faceki.api.endpoints.workflows import WorkflowRules
from airflow_provider_faceki.api.errors import (
    FacekiError,
    NotFoundError,
    OutcomeUnknownError,
    UnexpectedResponseError,
    ValidationError,
    VerificationError,
)
from airflow_provider_faceki.api.models import Decision, Summary, VerificationRecord, latest
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.fields import has_field, says_none
from airflow_provider_faceki.api.protocol.http import HttpRequest, Json, image_request
from airflow_provider_faceki.api.protocol.session import AuthSession, Sleep, Steps, call_once
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.uploads import Image, check_image
from airflow_provider_faceki.api.values import check_identifier

#: Seconds between the first two look-ups of a verification whose answer was lost; doubled for each further one.
FIRST_LOOKUP_PAUSE_SECONDS = 1.0
MAX_LOOKUP_PAUSE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Document:
    """An identity document.

    :param front: Its front, or the page with the portrait.
    :param back: Its back; a passport has none.
    :raises ValidationError: one of them is no :class:`Image`.
    """

    front: Image
    back: Image | None = None

    def __post_init__(self) -> None:
        check_image("front", self.front)
        if self.back is not None:
            check_image("back", self.back)


class VerificationSummary(Summary):
    """A summary that also says whether the person should send another selfie."""

    retake_selfie: bool


@dataclass(frozen=True, slots=True, repr=False)
class KycVerification:
    """Outcome of a verification.

    :param record: The record: whole if it was looked up, else the fields of FACEKI's answer.
    :param is_whole: Whether :attr:`record` is a whole record.
    """

    record: VerificationRecord
    is_whole: bool

    @property
    def decision(self) -> Decision | None:
        """The verdict."""
        return self.record.decision

    def summary(self) -> VerificationSummary:
        """Return what may go to XCom; nothing about the person."""
        codes = set(self.record.error_codes)
        return {**self.record.summary(), "retake_selfie": bool(codes & RETAKE_SELFIE)}

    def to_dict(self) -> dict[str, Json]:
        """Return ids, decision and codes, for stores that may hold nothing about the person."""
        return {
            "record_identifier": self.record.record_identifier,
            "request_id": self.record.request_id,
            "decision": self.decision.value if self.decision else None,
            "codes": list(self.record.error_codes),
        }

    @classmethod
    def from_dict(cls, stored: object) -> KycVerification | None:
        """Return the verification that :meth:`to_dict` stored; ``None`` if ``stored`` is anything else."""
        if not isinstance(stored, Mapping):
            return None
        texts = (stored.get(name) for name in ("record_identifier", "request_id", "decision"))
        identifier, request_id, decision = (text if isinstance(text, str) else None for text in texts)
        codes = stored.get("codes")
        record = VerificationRecord.from_fields(
            record_identifier=identifier,
            request_id=request_id,
            decision=decision,
            codes=[code for code in codes if type(code) is int] if isinstance(codes, list) else [],
        )
        if record.request_id is None and record.decision is None:
            return None
        return cls(record, is_whole=False)

    def __repr__(self) -> str:
        return f"<KycVerification {self.record.request_id} {self.decision}>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PerformKycVerification:
    """Verify a person by a selfie and one to three documents. Billed.

    https://docs.faceki.com/api-integration/verification-apis/perform-kyc-verification

    The request is not sent again once a byte of the body may have left, unless FACEKI says that it did not act, or it
    cannot have received the whole. If the answer is lost, or is not of this verification, the record is looked up by
    ``record_identifier``. A person who does not pass is a result with decision DECLINED and FACEKI's codes.

    :param workflow_id: Workflow from the FACEKI portal.
    :param selfie: Picture of the person.
    :param documents: One to three documents, in any order.
    :param record_identifier: Your own id of *this* verification. Use each id for one verification only.
    :param lookup_timeout: Seconds during which the record is looked up after the answer was lost. Default 60.
    :param known_request_ids: Earlier verifications under this identifier.
    :param not_before: Unix time; records that FACEKI made before it are of earlier verifications too.
    :raises ValidationError: an argument cannot work.
    """

    #: A record that is in hand counts, whatever the envelope says.
    reads_records: ClassVar[bool] = True

    workflow_id: str
    selfie: Image
    documents: Sequence[Document]
    record_identifier: str
    lookup_timeout: float = DEFAULT_LOOKUP_TIMEOUT_SECONDS
    known_request_ids: frozenset[str] = frozenset()
    not_before: float | None = None

    def __post_init__(self) -> None:
        check_identifier("workflow_id", self.workflow_id)
        check_identifier("record_identifier", self.record_identifier)
        check_image("selfie", self.selfie)
        _check_documents(self.documents)
        check_seconds("lookup_timeout", self.lookup_timeout)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the request."""
        images = [("selfie", self.selfie)]
        for number, document in enumerate(self.documents, 1):
            images.append((f"document_{number}_front", document.front))
            if document.back is not None:
                images.append((f"document_{number}_back", document.back))
        fields = (("workflowId", self.workflow_id), ("record_identifier", self.record_identifier))
        return image_request(f"{service.base_url}/api/v3/kyc_verification", fields, images)

    def read(self, answer: Payload) -> KycVerification:
        """Return the result.

        :raises UnexpectedResponseError: the answer holds no decision, or is of another verification; this one may well
            have been made.
        """
        record = self._own_record(answer)
        if record is None:
            raise UnexpectedResponseError(
                "FACEKI's answer to a verification holds no decision for it that is understood. It holds "
                f"{answer.found}",
                http_status=answer.status,
            )
        return KycVerification(record, is_whole=has_field(record.document, "document_data"))

    def _own_record(self, answer: Payload) -> VerificationRecord | None:
        """Return the one decided record of the answer, unless it is of another verification."""
        try:
            records = read_records(answer)
        except UnexpectedResponseError:
            return None
        own = [record for record in records if self._may_be_own(record)]
        sure = [record for record in own if record.matches("record_identifier", self.record_identifier)]
        own = sure or own
        if len(own) != 1 or own[0].decision is None:
            return None
        if own[0].record_identifier is not None:
            return own[0]
        return VerificationRecord({**own[0].document, "record_identifier": self.record_identifier})

    def _may_be_own(self, record: VerificationRecord) -> bool:
        is_named_otherwise = record.matches("record_identifier", self.record_identifier) is False
        return not is_named_otherwise and record.request_id not in self.known_request_ids

    def steps(self, account: AuthSession) -> Steps[KycVerification]:
        """Submit, and look up what became of it if the answer is lost."""
        try:
            return (yield from call_once(account, self))
        except VerificationError as refusal:
            if refusal.record_identifier in (None, self.record_identifier):
                return self._did_not_pass(refusal)
            reason = "it is of another verification"
        except FacekiError as error:
            if not error.is_ambiguous:
                raise
            reason = error.message
        return (yield from self._reconcile(account, reason))

    def _reconcile(self, account: AuthSession, reason: str) -> Steps[KycVerification]:
        """Look up the record until it is decided or the time is over.

        :param account: The account.
        :param reason: Why the answer is no result.
        """
        began, paused, pause = account.clock(), 0.0, FIRST_LOOKUP_PAUSE_SECONDS
        while True:
            found = yield from self._look_up(account, reason)
            # A request takes its time too, most of all where FACEKI does not answer; and the clock may be set back.
            waited = max(paused, account.clock() - began)
            if found is not None and (found.decision is not None or waited >= self.lookup_timeout):
                return found
            if waited >= self.lookup_timeout:
                raise OutcomeUnknownError(
                    f"the verification was sent, its answer is no result ({reason}), and FACEKI has shown no record of "
                    f"it for {waited:.0f} s; look again by its record_identifier before sending it again"
                )
            pause = min(pause, self.lookup_timeout - waited)
            yield Sleep(pause)
            paused, pause = paused + pause, min(pause * 2, MAX_LOOKUP_PAUSE_SECONDS)

    def _look_up(self, account: AuthSession, reason: str) -> Steps[KycVerification | None]:
        look = FindKycVerification(
            record_identifier=self.record_identifier,
            known_request_ids=self.known_request_ids,
            not_before=self.not_before,
        )
        try:
            return (yield from call_once(account, look))
        except FacekiError as error:
            if error.is_transient:
                return None
            raise OutcomeUnknownError(
                f"the verification was sent, its answer is no result ({reason}), and its record cannot be asked for: "
                f"{error.message}"
            ) from error

    def _did_not_pass(self, refusal: VerificationError) -> KycVerification:
        # FACEKI's own apps take every such code for a failed verification, whether or not a decision comes along.
        record = VerificationRecord.from_fields(
            record_identifier=self.record_identifier,
            request_id=refusal.request_id,
            decision=Decision.DECLINED.value,
            codes=[refusal.code] if refusal.code is not None else [],
        )
        return KycVerification(record, is_whole=False)

    def __repr__(self) -> str:
        return f"<PerformKycVerification with {len(self.documents)} document(s)>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FindKycVerification:
    """Look up a verification that was made, or may have been; ``None`` if FACEKI says that there is none.

    https://docs.faceki.com/api-integration/verification-apis/fetch-records

    A caller that finds nothing goes on to pay, so this is stricter than :class:`FetchRecords`. "None" is an empty list,
    code 8013, or a 404 in one of FACEKI's envelopes. A record must name what was asked for: how FACEKI takes a filter
    that it does not know is undocumented.

    :param record_identifier: Your own id; or give ``request_id``.
    :param request_id: FACEKI's id.
    :param known_request_ids: Verifications to leave out.
    :param not_before: Unix time; records made before it are left out.
    :raises ValidationError: not exactly one of the two ids is given, or it cannot be an id.
    """

    #: A record that is in hand counts, whatever the envelope says.
    reads_records: ClassVar[bool] = True

    record_identifier: str | None = None
    request_id: str | None = None
    known_request_ids: frozenset[str] = frozenset()
    not_before: float | None = None

    def __post_init__(self) -> None:
        self._records()
        if self.record_identifier is not None:
            check_identifier("record_identifier", self.record_identifier)

    def _records(self) -> FetchRecords:
        return FetchRecords(record_identifier=self.record_identifier, request_id=self.request_id)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the request."""
        return self._records().request(service)

    def read(self, answer: Payload) -> KycVerification | None:
        """Return the newest verification that is not left out.

        :raises UnexpectedResponseError: the records are of other verifications, or are not understood.
        """
        records = read_records(answer)
        if not records and answer.result is not None and not says_none(answer.document):
            # A caller that finds nothing goes on to pay, so an empty object is not believed as an empty list is.
            raise UnexpectedResponseError(
                f"FACEKI's answer to the search for a verification does not say whether there is one. It holds "
                f"{answer.found}",
                http_status=answer.status,
            )
        own = [record for record in records if self._is_own(record)]
        if records and not own:
            raise UnexpectedResponseError(
                "FACEKI answers the search for one verification with others; check the Connection's records_path and "
                "the names of its record filters"
            )
        meant = (record for record in own if record.request_id not in self.known_request_ids)
        return newest_since(meant, self.not_before)

    def empty(self, error: NotFoundError) -> KycVerification | None:
        """Return the result for nothing found.

        :raises UnexpectedResponseError: FACEKI does not say so in its own words.
        """
        check_is_stated(error)
        return None

    def _is_own(self, record: VerificationRecord) -> bool:
        if self.request_id is not None:
            return record.matches("request_id", self.request_id) is True
        return record.matches("record_identifier", self.record_identifier or "") is True

    def __repr__(self) -> str:
        return f"<FindKycVerification by {'request_id' if self.request_id else 'record_identifier'}>"


def newest_since(records: Iterable[VerificationRecord], not_before: float | None) -> KycVerification | None:
    """Return the newest of ``records`` that FACEKI made since ``not_before``, or whose time is not known.

    :param records: What FACEKI has.
    :param not_before: Unix time, or ``None`` for all times.
    """
    since = [record for record in records if not_before is None or not record.is_older_than(not_before)]
    newest = latest(since)
    return KycVerification(newest, is_whole=True) if newest is not None else None


def check_documents(rules: WorkflowRules, documents: Sequence[Document]) -> None:
    """Check documents against the rules of a workflow, before the billed call.

    FACEKI itself finds out which image shows which document, so only numbers are compared.

    :raises ValidationError: there are fewer documents than the workflow asks for, or too few back sides.
    """
    asked = rules.documents
    needed = min(1, len(asked)) if rules.document_optional else len(asked)
    if len(documents) < needed:
        raise ValidationError(
            f"the workflow asks for {needed} document(s) ({', '.join(asked)}); {len(documents)} given"
        )
    without_back = sum(document.back is None for document in documents)
    passports = sum(name.strip().lower() == "passport" for name in asked)
    allowed = len(documents) if rules.document_optional and passports else passports
    if asked and without_back > allowed:
        raise ValidationError(
            f"{without_back} document(s) without a back side, but the workflow's documents "
            f"({', '.join(asked)}) allow that for {allowed}: only a passport has none"
        )


def _check_documents(documents: object) -> None:
    if not isinstance(documents, Sequence) or isinstance(documents, str):
        raise ValidationError(
            f"documents must be a list of one to three Documents, not {type(documents).__name__}"
        )
    if not 1 <= len(documents) <= 3:
        raise ValidationError(f"documents must be one to three documents, not {len(documents)}")
    for number, document in enumerate(documents):
        if not isinstance(document, Document):
            raise ValidationError(f"documents[{number}] must be a Document, not {type(document).__name__}")
