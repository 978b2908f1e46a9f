# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operators for API calls about one image, and the base class of operators with images."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.api.lazy import lazy_property
from airflow_provider_faceki.api.values import storable
from airflow_provider_faceki.charged_call import ChargedCallState, digest
from airflow_provider_faceki.failures import translate_errors
from airflow_provider_faceki.links.faceki import FacekiOutputLink
from airflow_provider_faceki.operators.faceki import FacekiOperator, check_output

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.hooks.faceki import FacekiHook
    from airflow_provider_faceki.storage import AccessPolicy

#: Factor for the Connection's ``max_image_bytes``. If an image is reduced before it is sent, the size limit of the
#: original image is ``max_image_bytes`` times this factor.
_MAX_SIZE_FACTOR_BEFORE_RESIZING = 10


def load_image(
    hook: FacekiHook,
    name: str,
    uri: str,
    conn_id: str | None,
    resize_to: int | None = None,
    policy: AccessPolicy | None = None,
) -> api.Image:
    """Check an image and return it. If it is larger than ``resize_to``, return a reduced copy.

    :param hook: Hook whose Connection defines ``max_image_bytes``.
    :param name: Role of the image, such as ``selfie``. Error messages contain this name.
    :param uri: URI of the image.
    :param conn_id: Connection for the storage of the image.
    :param resize_to: Maximum length of the longer side in pixels. Default: the image is not reduced.
    :param policy: Policy that defines from which folders images are accepted. Default: any folder.
    :raises ValidationError: if the image is missing, empty, too large, not JPEG, PNG, WEBP or HEIC, or if ``policy``
        does not allow it.
    :raises ConfigurationError: if ``resize_to`` is set and Pillow is not installed.
    :raises OSError: if the storage fails.
    """
    from airflow_provider_faceki import storage

    limit = hook.settings.max_image_bytes
    policy = policy or storage.UNRESTRICTED
    if resize_to is None:
        return storage.image(name, uri, limit, conn_id, policy)
    from airflow_provider_faceki.resize import resized

    image = storage.image(name, uri, sys.maxsize, conn_id, policy)
    if image.size > limit * _MAX_SIZE_FACTOR_BEFORE_RESIZING:
        raise api.ValidationError(
            f"{name} has {image.size} bytes; an image to be made smaller may have "
            f"{_MAX_SIZE_FACTOR_BEFORE_RESIZING} times max_image_bytes={limit}"
        )
    return resized(name, image, resize_to, limit)


def images_fingerprint(selfie: object, documents: object) -> str:
    """Return a digest of the image URIs. Verifications with different image URIs have different digests.

    :param selfie: Rendered URI of the selfie.
    :param documents: Rendered list of documents. Each document is a URI, or a mapping with ``front`` and ``back``.
    """
    uris = [selfie]
    for item in documents if isinstance(documents, Sequence) else ():
        sides = item if isinstance(item, Mapping) else {"front": item}
        uris += [sides.get("front"), sides.get("back")]
    return digest(*uris)


def as_prefixes(allowed_image_prefixes: object) -> tuple[str, ...] | None:
    """Return the rendered value of ``allowed_image_prefixes`` as a tuple.

    :raises ValidationError: if the value is not a list of strings, or if the list is empty. A single string is also
        refused, because it would be split into its letters.
    """
    if allowed_image_prefixes is None:
        return None
    prefixes = tuple(allowed_image_prefixes) if isinstance(allowed_image_prefixes, list | tuple) else ()
    if not prefixes or not all(isinstance(prefix, str) for prefix in prefixes):
        raise api.ValidationError("allowed_image_prefixes must be a list of folders or URIs, or None for any")
    return prefixes


def check_resize_to(resize_to: object) -> None:
    """Raise ``ValueError`` if ``resize_to`` is not a positive whole number of pixels. ``None`` is allowed."""
    if resize_to is None or (
        isinstance(resize_to, int) and not isinstance(resize_to, bool) and resize_to > 0
    ):
        return
    raise ValueError(f"resize_to must be a whole number of pixels, at least 1, or None, not {resize_to!r}")


class _ImageOperator(FacekiOperator):
    """Base class of the operators that send images of one person. It contains their common parameters."""

    template_fields: Sequence[str] = (
        *FacekiOperator.template_fields,
        "image_conn_id",
        "allowed_image_prefixes",
    )

    def __init__(
        self,
        *,
        image_conn_id: str | None = None,
        resize_to: int | None = None,
        allowed_image_prefixes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_resize_to(resize_to)
        self.image_conn_id = image_conn_id
        self.resize_to = resize_to
        self.allowed_image_prefixes = allowed_image_prefixes
        self._remember_given("image_conn_id", "allowed_image_prefixes")

    def load(self, name: str, uri: str) -> api.Image:
        """Check an image with the settings of this task, and return it; see :func:`load_image`.

        :raises AirflowFailException: if the image is not accepted, or cannot be reduced.
        """
        with translate_errors():
            return load_image(self.hook, name, uri, self.image_conn_id, self.resize_to, self._access_policy())

    def _access_policy(self) -> AccessPolicy:
        from airflow_provider_faceki.storage import AccessPolicy

        return AccessPolicy(as_prefixes(self.allowed_image_prefixes))


class FacekiFaceMatchOperator(_ImageOperator):
    """Search for a face among the people who were verified before. Each call is charged.

    If the answer to a call is lost, the result of the call cannot be looked up later. Therefore the operator does not
    send the call again. The task fails and is not retried. If a try is killed during the call, the retry on Airflow 3.3
    and later also fails without sending the call. Before Airflow 3.3, no state survives a killed task, so a retry
    possibly sends and charges the call a second time. To prevent this second call, set ``retries=0``.

    Found records are not lost if they cannot be written to ``output_path``:

    - On Airflow 3.3 and later, ids, decisions and codes of the found records are stored. The next try does not search
      again. To write the file, it fetches the records by id, which is free. If Airflow cannot store the return value of
      the task and retries the task, the next try does not search again either.
    - Before Airflow 3.3, the task pushes the summaries as XCom ``found``, and fails without a retry.

    XCom: a list of summaries without personal data. The list is empty if no person was found.
    https://docs.faceki.com/api-integration/verification-apis/face-match-api

    :param selfie: URI of the image, in any storage that Airflow supports.
    :param output_path: URI to which the full records are written as a JSON array. The file contains personal data.
    :param output_conn_id: Connection for the storage of ``output_path``. Default: the Connection in the URI, if there
        is one.
    :param image_conn_id: Connection for the storage of the image. Default: the Connection in the URI, if there is
        one.
    :param resize_to: Maximum length in pixels of the longer side. A larger image is reduced to this length, which
        needs the package extra ``images``. Default: the image is not reduced.
    :param allowed_image_prefixes: Folders from which the image is accepted, as absolute local paths or as URIs
        without a Connection. Default: any folder. Set this parameter if the image's URI comes from outside the DAG.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    custom_operator_name = "FACEKI face match"
    operator_extra_links = (FacekiOutputLink(),)
    _picturing = ("selfie",)
    template_fields: Sequence[str] = (
        *_ImageOperator.template_fields,
        "selfie",
        "output_path",
        "output_conn_id",
    )

    def __init__(
        self,
        *,
        selfie: str,
        output_path: str | None = None,
        output_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.selfie = selfie
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self._remember_given("selfie", "output_path", "output_conn_id")

    def execute(self, context: Context) -> list[api.Summary]:
        """Search for the face and return the summaries of the matches."""
        with translate_errors():
            self.check_rendered()
            check_output(self.output_path, self.output_conn_id)
            self.push_output_link(context, self.output_path, self.output_conn_id)
        records, is_kept = self._found_before(context), True
        if records is None:
            # No result is saved for this image, although each finished search saves its result. So every search that an
            # earlier try has finished was for another image. ``is_new_after_finish=True`` means that such a finished
            # search does not prevent this search.
            endpoint = api.FaceMatch(self._image)
            records = self.call_charged(context, endpoint, is_new_after_finish=True)
            is_kept = self._keep(context, records)
        if self.output_path:
            path = self._write(context, self.output_path, records, is_kept)
            context["ti"].xcom_push(key="output_path", value=path)
            self.report_file(path, len(records))
        state = ChargedCallState(context)
        state.finish()
        state.finish_matches()
        return [storable(record.summary()) for record in records]

    @lazy_property
    def _image(self) -> api.Image:
        return self.load("selfie", self.selfie)

    def _found_before(self, context: Context) -> Sequence[api.VerificationRecord] | None:
        with translate_errors():
            matches = ChargedCallState(context).load_matches(self.selfie, self._size)
        if matches is None:
            return None
        self.log.info("An earlier try found %d record(s) with this image", len(matches))
        return [self._whole(match) if self.output_path else match.record for match in matches]

    def _size(self) -> int | None:
        """Return the size of the image in bytes. If the image is missing or unusable, return ``None``.

        If the size has changed since an earlier try, another image is now stored at the same URI. In this case the
        earlier result must not be used.
        """
        try:
            image = load_image(
                self.hook, "selfie", self.selfie, self.image_conn_id, policy=self._access_policy()
            )
        except api.ValidationError:
            return None
        return image.size

    def _whole(self, match: api.KycVerification) -> api.VerificationRecord:
        request_id = match.record.request_id
        found = self.call(api.FindKycVerification(request_id=request_id)) if request_id else None
        return (found or match).record

    def _keep(self, context: Context, records: Sequence[api.VerificationRecord]) -> bool:
        # The next try compares the saved size in bytes with the current size, to find out whether the image has
        # changed. If Pillow reduces the image before it is sent, no size is saved, because another version of Pillow
        # possibly produces a file of another size.
        size = self._image.size if self.resize_to is None else None
        return ChargedCallState(context).save_matches(records, self.selfie, size)

    def _write(
        self, context: Context, path: str, records: Sequence[api.VerificationRecord], is_kept: bool
    ) -> str:
        try:
            with translate_errors():
                return self.write_json(
                    path, [dict(record.document) for record in records], self.output_conn_id
                )
        except (OSError, AirflowFailException) as error:
            if is_kept:
                raise
            context["ti"].xcom_push(key="found", value=[record.summary() for record in records])
            raise AirflowFailException(
                "the records that were found could not be written; their summaries are in XCom "
                "'found', and the image is not sent again automatically: clear the task to send it "
                "again"
            ) from error


class FacekiAnalyzeFaceOperator(_ImageOperator):
    """Estimate age, gender and liveness of a face.

    The call is possibly charged, so it is protected against repetition in the same way as the call of
    :class:`FacekiFaceMatchOperator`.

    XCom: ``{"min_age", "max_age", "gender", "gender_confidence", "face_detection_confidence", "liveness_score"}``.
    These values are personal data. A value that FACEKI does not report is ``None``.

    :param selfie: URI of the image, in any storage that Airflow supports.
    :param image_conn_id: Connection for the storage of the image. Default: the Connection in the URI, if there is
        one.
    :param resize_to: Maximum length in pixels of the longer side. A larger image is reduced to this length, which
        needs the package extra ``images``. Default: the image is not reduced.
    :param allowed_image_prefixes: Folders from which the image is accepted. Default: any folder.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    custom_operator_name = "FACEKI face analysis"
    template_fields: Sequence[str] = (*_ImageOperator.template_fields, "selfie")

    def __init__(self, *, selfie: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.selfie = selfie
        self._remember_given("selfie")

    def execute(self, context: Context) -> dict[str, Any]:
        """Analyse the face, and return the estimates of age, gender and liveness."""
        with translate_errors():
            self.check_rendered()
        found = asdict(self.call_charged(context, api.AnalyzeFace(self.load("selfie", self.selfie))))
        ChargedCallState(context).finish()
        del found["document"]
        return storable(found)


class FacekiCheckImageOperator(_ImageOperator):
    """Check the quality of an image before the charged verification. As far as is known, this call is free.

    XCom: ``{"objects", "quality", "is_live", "liveness_score"}``. ``objects`` is the list of the objects that FACEKI
    found in the image. FACEKI publishes no thresholds for these values. FACEKI's React SDK requires a quality of at
    least 110 (front sides) or 80 (back sides), and a liveness score of at least 0.87. FACEKI's SDKs for Android and
    React Native require a liveness score above 0.7.

    :param image: URI of the image, in any storage that Airflow supports.
    :param image_conn_id: Connection for the storage of the image. Default: the Connection in the URI, if there is
        one.
    :param resize_to: Maximum length in pixels of the longer side. A larger image is reduced to this length, which
        needs the package extra ``images``. Default: the image is not reduced.
    :param allowed_image_prefixes: Folders from which the image is accepted. Default: any folder.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    custom_operator_name = "FACEKI image check"
    template_fields: Sequence[str] = (*_ImageOperator.template_fields, "image")

    def __init__(self, *, image: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image = image
        self._remember_given("image")

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the image and return its quality."""
        with translate_errors():
            self.check_rendered()
        found = asdict(self.call(api.CheckImage(self.load("image", self.image))))
        del found["document"]
        return storable({**found, "objects": list(found["objects"])})
