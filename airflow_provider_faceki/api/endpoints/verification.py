# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The call that verifies one person, and the call that looks up the record of a verification.

FACEKI bills every verification and has no idempotency keys, so a repeated verification is billed twice. Therefore a
verification is not repeated after a lost answer. Instead, its record is looked up by the caller's
``record_identifier``.
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
from airflow_provider_faceki.api.protocol.fields import has_field
from airflow_provider_faceki.api.protocol.messages import HttpRequest, Json, image_request
from airflow_provider_faceki.api.protocol.session import AuthSession, Sleep, Steps, call_once
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.uploads import Image, check_image
from airflow_provider_faceki.api.values import check_identifier

#: If FACEKI's answer to a verification is lost or unusable, the record of the verification is looked up several times.
#: This number is the pause in seconds between the first two lookups. Each further pause is twice as long as the one
#: before, up to :data:`MAX_LOOKUP_PAUSE_SECONDS`.
FIRST_LOOKUP_PAUSE_SECONDS = 1.0
#: Maximum pause in seconds between two lookups of the record of a verification whose answer was lost or unusable.
MAX_LOOKUP_PAUSE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Document:
    """An identity document.

    :param front: Image of the front side, or of the page with the portrait.
    :param back: Image of the back side. ``None`` for a passport, which has no back side.
    :raises ValidationError: if ``front`` or ``back`` is not an :class:`Image`.
    """

    front: Image
    back: Image | None = None

    def __post_init__(self) -> None:
        check_image("front", self.front)
        if self.back is not None:
            check_image("back", self.back)


class VerificationSummary(Summary):
    """Summary of a record with the additional field ``retake_selfie``.

    This field is true if one of FACEKI's codes in the record means that a new selfie can help.
    """

    retake_selfie: bool


@dataclass(frozen=True, slots=True, repr=False)
class KycVerification:
    """Result of a verification.

    :param record: The complete record, or a record with only a few fields, such as the decision.
    :param is_whole: Whether :attr:`record` is a complete record.
    """

    record: VerificationRecord
    is_whole: bool

    @property
    def decision(self) -> Decision | None:
        """The decision, or ``None`` if FACEKI has not decided yet."""
        return self.record.decision

    def summary(self) -> VerificationSummary:
        """Return the summary of the record, without personal data."""
        codes = set(self.record.error_codes)
        return {**self.record.summary(), "retake_selfie": bool(codes & RETAKE_SELFIE)}

    def to_dict(self) -> dict[str, Json]:
        """Return a dictionary with ids, decision and codes, for a storage that must not contain personal data."""
        return {
            "record_identifier": self.record.record_identifier,
            "request_id": self.record.request_id,
            "decision": self.decision.value if self.decision else None,
            "codes": list(self.record.error_codes),
        }

    @classmethod
    def from_dict(cls, stored: object) -> KycVerification | None:
        """Return the result of a verification from a dictionary that :meth:`to_dict` returned.

        The result is ``None`` if ``stored`` is not a mapping, or if both the request id and the decision are missing or
        invalid.
        """
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
    """Verify a person with a selfie and one to three documents. FACEKI bills each call.

    https://docs.faceki.com/api-integration/verification-apis/perform-kyc-verification

    The request is sent again only in two cases: FACEKI cannot have received the complete body, or FACEKI's answer, such
    as HTTP 429, means that FACEKI did not act on the request. If the answer is lost, cannot be read, or belongs to
    another verification, the record is looked up by ``record_identifier``.

    If the person does not pass, no error is raised. The result has the decision DECLINED and FACEKI's codes.

    :param workflow_id: Id of the workflow from the FACEKI portal.
    :param selfie: Image of the person.
    :param documents: One to three documents, in any order.
    :param record_identifier: Your own id of *this* verification. Use each id for one verification only.
    :param lookup_timeout: Maximum seconds during which the record is looked up after a lost answer. The default is 60,
        because a record that does not exist after one minute is unlikely to appear later.
    :param known_request_ids: FACEKI's ids of earlier verifications. The records of these verifications are ignored.
        Pass these ids only if ``record_identifier`` was used before, for example in an earlier attempt for the same
        person.
    :param not_before: Unix time. Records that FACEKI created before this time belong to earlier verifications and are
        ignored.
    :raises ValidationError: if an argument is invalid.
    """

    is_charged: ClassVar[bool] = True
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
        images = [("selfie", self.selfie)]
        for number, document in enumerate(self.documents, 1):
            images.append((f"document_{number}_front", document.front))
            if document.back is not None:
                images.append((f"document_{number}_back", document.back))
        fields = (("workflowId", self.workflow_id), ("record_identifier", self.record_identifier))
        return image_request(f"{service.base_url}/api/v3/kyc_verification", fields, images)

    def read(self, answer: Payload) -> KycVerification:
        """Return the result of the verification in FACEKI's answer.

        :raises UnexpectedResponseError: if the answer contains no decision, or the decision of another verification. In
            both cases, FACEKI has possibly performed and billed this verification.
        """
        record = self._own_record(answer)
        if record is None:
            raise answer.unexpected(
                "FACEKI's answer to a verification contains no decision in a known format"
            )
        return KycVerification(record, is_whole=has_field(record.document, "document_data"))

    def _own_record(self, answer: Payload) -> VerificationRecord | None:
        """Return the record of this verification in an answer.

        The result is ``None`` if the answer contains no such record, if it contains several such records, or if the
        record has no decision.
        """
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

    def steps(self, session: AuthSession) -> Steps[KycVerification]:
        """Submit the verification. If the answer is lost or cannot be used, look up the record."""
        try:
            return (yield from call_once(session, self))
        except VerificationError as refusal:
            if refusal.record_identifier in (None, self.record_identifier):
                return self._did_not_pass(refusal)
            reason = "it belongs to another verification"
        except FacekiError as error:
            if not error.is_ambiguous:
                raise
            reason = error.message
        return (yield from self._reconcile(session, reason))

    def _reconcile(self, session: AuthSession, reason: str) -> Steps[KycVerification]:
        """Look up the record of this verification, until it has a decision or ``lookup_timeout`` has passed.

        :param reason: Reason why FACEKI's answer cannot be used, for the error message.
        :raises OutcomeUnknownError: if no record was found within ``lookup_timeout``, or a lookup failed permanently.
        """
        began, paused, pause = session.clock(), 0.0, FIRST_LOOKUP_PAUSE_SECONDS
        while True:
            found = yield from self._look_up(session, reason)
            # Seconds since the first lookup began, including the duration of the requests. They are measured with the
            # system clock. If somebody sets this clock back, the measured time is too short. In this case, the sum of
            # all pauses between the lookups is used instead.
            waited = max(paused, session.clock() - began)
            if found is not None and (found.decision is not None or waited >= self.lookup_timeout):
                return found
            if waited >= self.lookup_timeout:
                raise OutcomeUnknownError(
                    "the verification was sent, but there is no usable answer from FACEKI "
                    f"({reason}), and FACEKI has returned no record of it for {waited:.0f} s; look it "
                    "up by its record_identifier before you send it again"
                )
            pause = min(pause, self.lookup_timeout - waited)
            yield Sleep(pause)
            paused, pause = paused + pause, min(pause * 2, MAX_LOOKUP_PAUSE_SECONDS)

    def _look_up(self, session: AuthSession, reason: str) -> Steps[KycVerification | None]:
        look = FindKycVerification(
            record_identifier=self.record_identifier,
            known_request_ids=self.known_request_ids,
            not_before=self.not_before,
        )
        try:
            return (yield from call_once(session, look))
        except FacekiError as error:
            if error.is_transient:
                return None
            raise OutcomeUnknownError(
                f"the verification was sent, but there is no usable answer from FACEKI ({reason}), and "
                f"its record cannot be fetched: {error.message}"
            ) from error

    def _did_not_pass(self, refusal: VerificationError) -> KycVerification:
        # FACEKI answered with a code that raises a VerificationError. FACEKI's own apps treat each such code as a
        # failed verification. Therefore the result has the decision DECLINED, even if the answer contains no decision.
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
    """Look up the newest record of a verification. If FACEKI has no record, the result is ``None``.

    https://docs.faceki.com/api-integration/verification-apis/fetch-records

    Only records that contain the requested id count. (:class:`FetchRecords` also accepts records without an id.) If
    FACEKI returns records, but none of them contains the id, FACEKI has possibly ignored the id. In this case, an error
    is raised. The result ``None`` would be dangerous, because a caller possibly sends a new verification after ``None``
    and pays for it.

    :param record_identifier: Your own id of the verification. It is required if there is no ``request_id``.
    :param request_id: FACEKI's id of the verification. It is required if there is no ``record_identifier``.
    :param known_request_ids: FACEKI's ids of verifications whose records are ignored.
    :param not_before: Unix time. Records that FACEKI created before this time are ignored.
    :raises ValidationError: if none or both of ``record_identifier`` and ``request_id`` are set, or if the id is not
        valid.
    """

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
        return self._records().request(service)

    def read(self, answer: Payload) -> KycVerification | None:
        """Return the newest verification in FACEKI's answer that has the requested id, or ``None`` if there is none.

        Several verifications can have the same ``record_identifier``. Verifications that ``known_request_ids`` or
        ``not_before`` excludes are ignored.

        :raises UnexpectedResponseError: if the answer contains records, but no record has the requested id, or if the
            answer has an unknown format.
        """
        records = read_records(answer)
        own = [record for record in records if self._is_own(record)]
        if records and not own:
            raise UnexpectedResponseError(
                "FACEKI returned records of other verifications; check the Connection's records_path "
                "and the names of its record filters"
            )
        meant = (record for record in own if record.request_id not in self.known_request_ids)
        return newest_since(meant, self.not_before)

    def empty(self, error: NotFoundError) -> KycVerification | None:
        """Return ``None`` if ``error`` proves that FACEKI has no record; see :func:`check_is_stated`."""
        check_is_stated(error)
        return None

    def _is_own(self, record: VerificationRecord) -> bool:
        if self.request_id is not None:
            return record.matches("request_id", self.request_id) is True
        return record.matches("record_identifier", self.record_identifier or "") is True

    def __repr__(self) -> str:
        return f"<FindKycVerification by {'request_id' if self.request_id else 'record_identifier'}>"


def newest_since(records: Iterable[VerificationRecord], not_before: float | None) -> KycVerification | None:
    """Return the verification with the newest record, or ``None`` if there is no record.

    Records that FACEKI certainly created before ``not_before`` are ignored. A record without a readable creation time
    is never ignored.

    :param not_before: Unix time, or ``None`` for no limit.
    """
    since = [record for record in records if not_before is None or not record.is_older_than(not_before)]
    newest = latest(since)
    return KycVerification(newest, is_whole=True) if newest is not None else None


def check_documents(rules: WorkflowRules, documents: Sequence[Document]) -> None:
    """Check that there are enough documents and back sides for the workflow. Call this function before a verification.

    The types of the documents are not checked, because FACEKI itself detects the type of each document.

    :raises ValidationError: if there are fewer documents, or fewer back sides, than the workflow requires.
    """
    required = rules.documents
    needed = min(1, len(required)) if rules.document_optional else len(required)
    if len(documents) < needed:
        raise ValidationError(
            f"the workflow requires {needed} document(s) ({', '.join(required)}); {len(documents)} given"
        )
    without_back = sum(document.back is None for document in documents)
    passports = sum(name.strip().lower() == "passport" for name in required)
    allowed = len(documents) if rules.document_optional and passports else passports
    if required and without_back > allowed:
        raise ValidationError(
            f"{without_back} document(s) without a back side, allowed are {allowed}: only a passport has no "
            f"back side, and the workflow's documents are {', '.join(required)}"
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
