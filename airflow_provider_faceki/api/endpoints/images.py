# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The three calls that send one image to FACEKI: face match, face analysis and image check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from airflow_provider_faceki.api.codes import DATA_NOT_FOUND
from airflow_provider_faceki.api.endpoints.records import read_records
from airflow_provider_faceki.api.errors import (
    FacekiError,
    NotFoundError,
    OutcomeUnknownError,
    VerificationError,
)
from airflow_provider_faceki.api.models import VerificationRecord
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.fields import as_flag, field, find_objects, has_field
from airflow_provider_faceki.api.protocol.messages import HttpRequest, Json, image_request
from airflow_provider_faceki.api.protocol.session import AuthSession, Endpoint, Steps, call_once
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.uploads import Image, check_image
from airflow_provider_faceki.api.values import as_number

T = TypeVar("T")

# A JSON object with at least one of the `_ANALYSIS_FIELDS` is a face analysis. A JSON object with at least one of the
# `_CHECK_FIELDS` is the result of an image check.
_ANALYSIS_FIELDS = (
    *("minAge", "maxAge", "gender", "genderConfidence"),
    *("livenessScore", "faceDetectionConfidence"),
)
_CHECK_FIELDS = ("objects_detected", "quality", "liveness")


@dataclass(frozen=True, slots=True)
class _SelfieCall:
    """Base class of the calls that send one selfie.

    The calls count against the limit of charged calls (setting ``max_charged_calls`` of the Connection).
    """

    is_charged: ClassVar[bool] = True
    _route: ClassVar[str]

    selfie: Image

    def __post_init__(self) -> None:
        check_image("selfie", self.selfie)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        url = f"{service.base_url}/api/v3/kyc_verification/{self._route}"
        return image_request(url, (), [("selfie", self.selfie)])


@dataclass(frozen=True, slots=True)
class FaceMatch(_SelfieCall):
    """Search for a face among the persons that FACEKI has verified before. FACEKI charges each call.

    https://docs.faceki.com/api-integration/verification-apis/face-match-api

    FACEKI does not document its answer to a search that finds no person. Therefore the result is an empty tuple after
    each of these answers:

    * The answer contains an empty list.
    * The answer has FACEKI's code 8013 (no such record).
    * The answer contains ``null``, and the setting ``null_result`` is ``no_record``.

    An answer with HTTP status 404 and without code 8013 raises an error, because a wrong URL is a possible cause.

    :param selfie: Image of the person.
    :raises ValidationError: if ``selfie`` is not an :class:`Image`.
    """

    reads_records: ClassVar[bool] = True
    _route: ClassVar[str] = "search-by-face"

    def read(self, answer: Payload) -> tuple[VerificationRecord, ...]:
        """Return the records of the persons that FACEKI found."""
        return read_records(answer)

    def steps(self, session: AuthSession) -> Steps[tuple[VerificationRecord, ...]]:
        """Send the search. If the answer is lost, the search is not sent again, because FACEKI charges each search."""
        try:
            return (yield from _charged(session, self))
        except NotFoundError as error:
            if error.code != DATA_NOT_FOUND:
                raise
            return ()


@dataclass(frozen=True, slots=True, repr=False)
class FaceAnalysis:
    """FACEKI's analysis of a face. Its ``repr`` hides the content.

    :param min_age: Lower bound of the age in years.
    :param max_age: Upper bound of the age in years.
    :param gender: ``Male`` or ``Female``, as FACEKI sends it.
    :param gender_confidence: Confidence of the gender, from 0 to 100.
    :param face_detection_confidence: Confidence that the image shows a face, from 0 to 100.
    :param liveness_score: Score of liveness, from 0 to 1.
    :param document: The answer as FACEKI sent it.
    """

    min_age: float | None
    max_age: float | None
    gender: str | None
    gender_confidence: float | None
    face_detection_confidence: float | None
    liveness_score: float | None
    document: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class AnalyzeFace(_SelfieCall):
    """Estimate the age, gender and liveness of a face. The call is undocumented and known from an official SDK.

    It is unknown whether FACEKI charges the call. Therefore the call counts against the limit of charged calls (setting
    ``max_charged_calls`` of the Connection), and it is not sent again if the answer is lost.

    :param selfie: Image of the person.
    :raises ValidationError: if ``selfie`` is not an :class:`Image`.
    """

    _route: ClassVar[str] = "analyzeFace"

    def read(self, answer: Payload) -> FaceAnalysis:
        """Return the face analysis from FACEKI's answer. Numbers in the form of text are accepted."""
        found = _object(answer, "face analysis", _ANALYSIS_FIELDS)
        gender = field(found, "gender")
        return FaceAnalysis(
            min_age=as_number(field(found, "minAge")),
            max_age=as_number(field(found, "maxAge")),
            gender=gender if isinstance(gender, str) else None,
            gender_confidence=as_number(field(found, "genderConfidence")),
            face_detection_confidence=as_number(field(found, "faceDetectionConfidence")),
            liveness_score=as_number(field(found, "livenessScore")),
            document=found,
        )

    def steps(self, session: AuthSession) -> Steps[FaceAnalysis]:
        """Send the request. If the answer is lost, the request is not sent again.

        The reason is that FACEKI possibly charges each request.
        """
        return _charged(session, self)


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """Result of the quality check of an image.

    FACEKI publishes no thresholds. Its React SDK requires at least one object, and a quality of at least 110 for a
    front side and at least 80 for a back side. The required liveness score differs between the SDKs. The React SDK
    requires at least 0.87. The Android and React Native SDKs require more than 0.7.

    :param objects: Objects that FACEKI found in the image.
    :param quality: Sharpness. A higher value is better.
    :param is_live: Whether the image shows the original instead of a screen or a copy.
    :param liveness_score: Score of liveness, from 0 to 1.
    :param document: The answer as FACEKI sent it.
    """

    objects: tuple[str, ...]
    quality: float | None
    is_live: bool | None
    liveness_score: float | None
    document: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class CheckImage:
    """Check the quality of an image. The request is sent to a separate host of FACEKI (setting ``addon_url``).

    The call is known from official SDKs, which send no token to this host. As far as is known, the call is free.
    Therefore the call can be repeated after a lost answer.

    :param image: Image to check.
    :raises ValidationError: if ``image`` is not an :class:`Image`.
    """

    image: Image

    def __post_init__(self) -> None:
        check_image("image", self.image)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        return image_request(
            f"{service.addon_url}/advance/detect",
            (),
            [("image", self.image)],
            authenticated=False,
            idempotent=True,
        )

    def read(self, answer: Payload) -> ImageCheck:
        """Return the result of the image check from FACEKI's answer. Numbers in the form of text are accepted."""
        found = _object(answer, "image check", _CHECK_FIELDS)
        objects, liveness = field(found, "objects_detected"), field(found, "liveness")
        live = liveness if isinstance(liveness, dict) else {}
        actual = field(live, "actual")
        return ImageCheck(
            objects=tuple(item for item in objects if isinstance(item, str))
            if isinstance(objects, list)
            else (),
            quality=as_number(field(found, "quality")),
            is_live=as_flag(actual),
            liveness_score=as_number(field(live, "livenessScore")),
            document=found,
        )


def _charged(session: AuthSession, endpoint: Endpoint[T]) -> Steps[T]:
    """Perform a charged call for which FACEKI stores no record.

    :raises OutcomeUnknownError: if the answer was lost, has an unknown format or code, or reports a failure of FACEKI's
        server. In these cases, FACEKI has possibly charged the call.
    """
    try:
        return (yield from call_once(session, endpoint))
    except FacekiError as error:
        if not error.is_ambiguous or isinstance(error, VerificationError):
            raise
        raise OutcomeUnknownError(
            "the image was sent, but there is no usable answer from FACEKI. The call may have been "
            f"charged, so it is not sent again: {error.message}"
        ) from error


def _object(answer: Payload, what: str, names: tuple[str, ...]) -> dict[str, Json]:
    found = find_objects(answer.document, lambda item: has_field(item, *names))
    if not found:
        raise answer.unexpected(f"FACEKI's answer contains no {what}")
    return found[0]
