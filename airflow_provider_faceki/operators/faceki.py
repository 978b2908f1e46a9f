# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Base class of the operators that call FACEKI, and operators that create a link, fetch records or make any call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_faceki import api
from airflow_provider_faceki.api.arguments import check_exactly_one, check_part_names
from airflow_provider_faceki.api.values import Json, is_uuid, loggable, storable
from airflow_provider_faceki.connection.schema import DEFAULT_CONN_ID
from airflow_provider_faceki.failures import (
    fail_if_declined,
    fail_with_unknown_outcome,
    is_task_retryable,
    translate_errors,
)
from airflow_provider_faceki.links.faceki import (
    OUTPUT_URL_KEY,
    RETURN_VALUE_KEY,
    FacekiHostedPageLink,
    FacekiOutputLink,
    FacekiRecordLink,
)
from airflow_provider_faceki.task_mixin import FacekiTaskMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.api.protocol.session import Endpoint
    from airflow_provider_faceki.lineage import Lineage

T = TypeVar("T")

#: Default of ``max_xcom_bytes``: the largest result in bytes that is stored as XCom. XCom is stored in Airflow's
#: database, so large results do not belong there.
DEFAULT_MAX_XCOM_BYTES = 48 * 1024

_FILTERS = ("request_id", "link", "record_identifier", "face_id")
_DUPLICATE = "another execution of this try has made this call, so it is not made a second time"
_SLOW_STORE = (
    "Airflow's task state store responds so slowly that another execution of this try has possibly made this "
    "call; this execution does not make it: clear the task to make it"
)
_NOT_SAFE = (
    "an earlier try made this call and ended before Airflow had stored its result; the call may have been "
    "charged, so it is not repeated automatically: clear the task to repeat it"
)


class FacekiOperator(FacekiTaskMixin, BaseOperator):
    """Base class of the operators that call FACEKI. It decides which failures are retried.

    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = ("faceki_conn_id",)
    #: Names of template fields that possibly contain identifiers of a person. In the lineage, the location of an output
    #: file must not show these identifiers.
    _identifying: Sequence[str] = ()
    #: Names of template fields with the URIs of images of a person. In the lineage, the location of an output file must
    #: not show the names of these images and of their folders.
    _picturing: Sequence[str] = ()

    #: Lineage of this execution: the datasets that it has read and written. ``None`` before they are reported.
    _lineage: Lineage | None = None
    _transient: Sequence[str] = (*FacekiTaskMixin._transient, "_lineage")

    def __init__(self, *, faceki_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.faceki_conn_id = faceki_conn_id
        self._remember_given("faceki_conn_id")

    def call(self, endpoint: Endpoint[T]) -> T:
        """Make one FACEKI API call and return its result.

        :param endpoint: The API call with its arguments.
        :raises AirflowFailException: if another try cannot succeed.
        :raises FacekiError: if another try can succeed.
        """
        with translate_errors():
            return self.hook.call(endpoint)

    def call_charged(
        self, context: Context, endpoint: Endpoint[T], *, is_new_after_finish: bool = False
    ) -> T:
        """Make a call that is possibly charged, and whose outcome cannot be looked up afterwards.

        The caller must store the result, and must then call :meth:`ChargedCallState.finish`, because this method does
        not call it. On Airflow 3.3 and later, a retry does not repeat a call that an earlier try has finished, or whose
        outcome is unknown because the earlier try was killed. If a person clears a task that has finished or failed,
        the task makes the call again.

        :param endpoint: The call.
        :param is_new_after_finish: Whether a retry makes the call even if an earlier try of the task has finished a
            call. Set it to ``True`` if the finished call was a different call, for example with another image. Default
            ``False``.
        :raises AirflowFailException: in these cases:

            - The outcome of the call in this try or in an earlier try is unknown.
            - An earlier try has finished the call, and ``is_new_after_finish`` is false.
            - Another execution of this try has made the call, or has possibly made it.
            - The call fails with an error after which another try cannot succeed.
        :raises AirflowException: if the call was not sent completely; see :meth:`ChargedCallState.send`.
        :raises FacekiError: if another try can succeed.
        """
        # The import is inside this method, so that DAG files are parsed faster.
        from airflow_provider_faceki.charged_call import ChargedCallState

        state = ChargedCallState(context)
        if state.is_duplicate:
            raise AirflowFailException(_DUPLICATE)
        if state.has_pending:
            state.give_up()
            fail_with_unknown_outcome(_NOT_SAFE, self.faceki_conn_id)
        if state.was_made_before_retry and (state.is_given_up or not is_new_after_finish):
            fail_with_unknown_outcome(_NOT_SAFE, self.faceki_conn_id)
        if not state.acquire():
            if not state.is_store_slow:
                raise AirflowFailException(_DUPLICATE)
            state.give_up()
            fail_with_unknown_outcome(_SLOW_STORE, self.faceki_conn_id)
        with translate_errors():
            try:
                return state.send(self.hook, endpoint)
            except api.FacekiError as error:
                # Before the call, ``acquire`` has stored an intent, which is a note that the call is about to be sent.
                # A later try that finds the intent does not send the call. Three cases remove or replace the intent:
                #
                # - FACEKI has certainly not processed the call: ``send`` has removed the intent.
                # - A retry of the task can succeed and is safe: ``clear`` removes the intent.
                # - The task fails without a retry: ``give_up`` replaces the intent by a mark for given-up calls.
                #
                # If the task is killed or times out during the call, none of this happens, and the intent remains.
                is_unknown = isinstance(error, api.OutcomeUnknownError)
                if not error.is_ambiguous:
                    raise
                if not is_unknown and is_task_retryable(error):
                    state.clear()
                    raise
                state.give_up()
                if not is_unknown:
                    raise
                # The cause of the error is removed, because Airflow logs the causes of an error, and their text can
                # contain secrets.
                error.__cause__ = error.__context__ = None
                raise AirflowFailException(str(error)) from error

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the datasets that this execution has read and written, in the form that OpenLineage needs.

        If Airflow's OpenLineage provider is installed, it calls this method.

        :param task_instance: Task instance that has ended. It is not used.
        """
        from airflow_provider_faceki.lineage import Lineage, to_openlineage

        return to_openlineage(self._lineage or Lineage())

    def write_json(self, uri: str, document: Any, conn_id: str | None) -> str:
        """Write a document as JSON, and return the location of the file.

        :param uri: URI of the output file.
        :param conn_id: Connection for the storage of ``uri``.
        :raises ValidationError: if the file can never be written.
        :raises OSError: if the storage fails.
        """
        # The module ``storage`` is needed only to write a file. Only a running task writes files, so the module is
        # imported here and not when a DAG file is parsed.
        from airflow_provider_faceki import storage

        return storage.write_json(uri, document, conn_id)

    def push_output_link(
        self, context: Context, uri: str | None, conn_id: str | None, *, is_folder: bool = False
    ) -> None:
        """Store the output's web address for the task's extra link. If the storage has no web address, do nothing.

        :param uri: URI of the output file or folder. ``None`` means that the task writes no output.
        :param conn_id: Connection for the storage of ``uri``.
        :param is_folder: Whether ``uri`` is the URI of a folder.
        """
        from airflow_provider_faceki.links.cloud_console import web_address

        if uri:
            self.push_link(context, OUTPUT_URL_KEY, web_address(uri, conn_id, is_folder=is_folder))

    def report_lineage(self, lineage: Lineage) -> None:
        """Report the datasets of this execution to Airflow's hook lineage, and store them for OpenLineage.

        :param lineage: The datasets that this execution has read and written.
        """
        from airflow_provider_faceki.lineage import collect

        self._lineage = lineage
        collect(lineage, self.hook)

    def report_file(self, path: str, rows: int | None = None) -> None:
        """Report that this execution has written a file about one person.

        The lineage contains only the folder of the file, because the file name possibly identifies the person. If the
        name of a folder in the path contains an identifier of the person, the lineage contains only the path above this
        folder.

        :param path: Location of the file.
        :param rows: Number of records in the file.
        """
        from airflow_provider_faceki.lineage import Dataset, Lineage, folder_uri

        identifiers, images = (
            [getattr(self, name) for name in names] for names in (self._identifying, self._picturing)
        )
        folder = folder_uri(path, identifiers, images)
        self.report_lineage(Lineage(outputs=[Dataset(folder, rows)] if folder else []))


class FacekiGenerateKycLinkOperator(FacekiOperator):
    """Create a link under which one person is verified in a browser.

    XCom: ``{"link", "url", "record_identifier", "expires_at"}``. ``link`` is the id of the link, and ``url`` is the
    address of the page, which contains the id. Anyone who has the id or the address can open the page. Therefore the id
    is masked in logs, also as a part of the address. ``expires_at`` is computed from ``expires_in_minutes``. The user
    interface shows the page as an extra link of the task.
    https://docs.faceki.com/api-integration/verification-apis/generate-kyc-link

    :param workflow_id: Id of a workflow from the FACEKI portal. Default: the workflow in the Connection.
    :param record_identifier: Your own id of the person or case. The record can be found later by this id.
    :param expires_in_minutes: Whole minutes until the link expires. Default: FACEKI's own default, which is not
        published.
    :param redirect_url: URL to which the person's browser is redirected after the verification.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = (
        *FacekiOperator.template_fields,
        "workflow_id",
        "record_identifier",
        "redirect_url",
    )
    custom_operator_name = "FACEKI link"
    operator_extra_links = (FacekiHostedPageLink(),)

    def __init__(
        self,
        *,
        workflow_id: str | None = None,
        record_identifier: str | None = None,
        expires_in_minutes: int | None = None,
        redirect_url: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_id = workflow_id
        self.record_identifier = record_identifier
        self.expires_in_minutes = expires_in_minutes
        self.redirect_url = redirect_url
        self._remember_given("record_identifier", "redirect_url")

    def execute(self, context: Context) -> dict[str, str | None]:
        """Create the link and return it."""
        with translate_errors():
            self.check_rendered()
            endpoint = api.GenerateKycLink(
                workflow_id=self.hook.workflow(self.workflow_id),
                record_identifier=self.record_identifier,
                expires_in_minutes=self.expires_in_minutes,
                redirect_url=self.redirect_url,
            )
            expires_at = self._expires_at()
            made = self.hook.call(endpoint)
        if made.url is not None:
            self.link_urls[RETURN_VALUE_KEY] = made.url
        self.log.info(
            "FACEKI made a verification link%s%s",
            f" for record identifier {loggable(made.record_identifier)}" if made.record_identifier else "",
            f", valid until {expires_at}" if expires_at else "",
        )
        return {
            "link": made.link,
            "url": made.url,
            "record_identifier": made.record_identifier,
            "expires_at": expires_at,
        }

    def _expires_at(self) -> str | None:
        # FACEKI's own client sends 0 as the lifetime of a link. The meaning of 0 is not published. Therefore no expiry
        # time is computed for 0.
        if not self.expires_in_minutes:
            return None
        try:
            return (datetime.now(UTC) + timedelta(minutes=self.expires_in_minutes)).isoformat()
        except OverflowError:
            raise api.ValidationError(
                "expires_in_minutes is too large: the link would expire after the year 9999"
            ) from None


class FacekiFetchRecordsOperator(FacekiOperator):
    """Fetch the records of a verification, a link, a person, or your own identifier.

    Set exactly one of ``request_id``, ``link``, ``record_identifier`` and ``face_id``.

    XCom: a list of summaries without personal data. If ``output_path`` is set, the full records are written there as a
    JSON array, and the path is pushed as XCom ``output_path`` in addition to the summaries.
    https://docs.faceki.com/api-integration/verification-apis/fetch-records

    :param request_id: FACEKI's id of one verification.
    :param link: Link id, URL of the hosted page, or output of the task that created the link.
    :param record_identifier: Your own id of the verification.
    :param face_id: FACEKI's id of a person.
    :param output_path: URI of the output file in any storage that Airflow supports (``s3://…``, ``gs://…``,
        ``file:///…``). The file is written atomically. It contains personal data.
    :param output_conn_id: Connection for the storage of ``output_path``. Default: the Connection in the URI, if there
        is one.
    :param fail_on_decline: Whether the task fails if the newest record is DECLINED. Default ``False``, because a
        declined person is a valid result.
    :param fail_if_missing: Whether the task fails (and is possibly retried) if there is no record. If ``False``, the
        task returns an empty list. Default ``True``, because an id without a record is usually a mistake.
    :param skip_if_missing: Whether the task and its downstream tasks are skipped if there is no record. If ``True``,
        ``fail_if_missing`` has no effect. Default ``False``. Set ``True`` for ids that are possibly forged, such as the
        ids in a webhook.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = (
        *FacekiOperator.template_fields,
        "request_id",
        "link",
        "record_identifier",
        "face_id",
        "output_path",
        "output_conn_id",
    )
    custom_operator_name = "FACEKI records"
    operator_extra_links = (FacekiRecordLink(), FacekiOutputLink())
    _identifying = _FILTERS

    def __init__(
        self,
        *,
        request_id: str | None = None,
        link: str | Mapping[str, Any] | None = None,
        record_identifier: str | None = None,
        face_id: str | None = None,
        output_path: str | None = None,
        output_conn_id: str | None = None,
        fail_on_decline: bool = False,
        fail_if_missing: bool = True,
        skip_if_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_exactly_one(
            request_id=request_id, link=link, record_identifier=record_identifier, face_id=face_id
        )
        self.request_id = request_id
        self.link = link
        self.record_identifier = record_identifier
        self.face_id = face_id
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.fail_on_decline = fail_on_decline
        self.fail_if_missing = fail_if_missing
        self.skip_if_missing = skip_if_missing
        self._remember_given(*_FILTERS, "output_path", "output_conn_id")

    def execute(self, context: Context) -> list[api.Summary]:
        """Fetch the records, write them if ``output_path`` is set, and return the summaries."""
        with translate_errors():
            endpoint = self._fetch_call(**{name: getattr(self, name) for name in _FILTERS})
            check_output(self.output_path, self.output_conn_id)
            self.push_output_link(context, self.output_path, self.output_conn_id)
        records = self.call(endpoint)
        self.log.info("FACEKI has %d record(s)%s", len(records), self._subject())
        if not records and self.skip_if_missing:
            raise AirflowSkipException("FACEKI has no such record")
        if not records and self.fail_if_missing:
            raise api.NotFoundError(self._nothing_found()).with_conn_id(self.faceki_conn_id)
        if self.output_path:
            with translate_errors():
                path = self.write_json(
                    self.output_path, [dict(record.document) for record in records], self.output_conn_id
                )
            context["ti"].xcom_push(key="output_path", value=path)
            self.report_file(path, len(records))
        latest = api.latest(records)
        self.push_record_link(context, latest.request_id if latest else None)
        fail_if_declined(latest if self.fail_on_decline else None)
        return [storable(record.summary()) for record in records]

    def _nothing_found(self) -> str:
        name = next(each for each in _FILTERS if getattr(self, each) is not None)
        text = f"FACEKI has no such record (yet); it was searched by {name}"
        if name == "request_id" and not is_uuid(self.request_id):
            text += ", and this value is not an id of FACEKI (a UUID): pass your own id as record_identifier="
        return text

    def _subject(self) -> str:
        return f" for record identifier {loggable(self.record_identifier)}" if self.record_identifier else ""


class FacekiApiOperator(FacekiOperator):
    """Make any FACEKI API call that has no operator of its own.

    A call that is not idempotent is sent again only if FACEKI certainly did not act on it. After a call that is not
    idempotent, the task fails without a retry in these cases:

    - It is unknown whether FACEKI acted on the call, for example because the answer is lost.
    - The answer cannot be written to ``output_path``, or cannot be stored as XCom.
    - On Airflow 3.3 and later: an earlier try was killed during or after the call, or Airflow could not store its
      result. The next try then fails and does not send the call.

    Exception: before Airflow 3.3, the operator does not know what an earlier try has done. If an earlier try was killed
    during or after the call, Airflow's retry sends the call a second time. To prevent the second call, set
    ``retries=0``.

    XCom: the content of FACEKI's answer, without the outer JSON object (envelope). If ``output_path`` is set, the
    answer is written there, and XCom contains the path. The answer can contain personal data, and XCom is not
    encrypted. In XCom, values that Airflow's databases cannot store are replaced. For example, U+0000 and halves of
    surrogate pairs become U+FFFD, and integers with more than 64 bits become strings.

    :param method: GET, HEAD, POST, PUT, PATCH or DELETE.
    :param path: Path below the base URL, such as ``/api/v3/workflows/rules``.
    :param query: Query parameters.
    :param json: Document that is sent as JSON.
    :param data: Form fields that are sent URL-encoded. ``data`` and ``json`` cannot be combined.
    :param files: Mapping of part names to URIs of images, such as ``{"selfie_image": "s3://…/selfie.jpg"}``. The
        images are checked before the call and streamed as ``multipart/form-data``, together with the fields of
        ``data``.
    :param files_conn_id: Connection for the storage of ``files``. Default: the Connection in each URI, if a URI
        contains a Connection.
    :param authenticated: Whether the access token is sent. Default ``True``. FACEKI's calls by link need no token.
    :param idempotent: Whether the call can safely be sent twice: the second call changes nothing and is not charged.
        Default: ``True`` for GET and HEAD, ``False`` for all other methods.
    :param output_path: URI of the output file in any storage that Airflow supports.
    :param output_conn_id: Connection for the storage of ``output_path``. Default: the Connection in the URI, if there
        is one.
    :param max_xcom_bytes: Maximum size of an answer that is stored as XCom, in bytes of its JSON text. A larger answer
        fails the task. Default 48 KiB, because XCom is stored in Airflow's database. If ``do_xcom_push`` is off, there
        is no limit.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = (
        *FacekiOperator.template_fields,
        "path",
        "query",
        "json",
        "data",
        "files",
        "files_conn_id",
        "output_path",
        "output_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("query", "json", "data", "files"), "json"
    )
    custom_operator_name = "FACEKI call"
    operator_extra_links = (FacekiOutputLink(),)
    _identifying = ("path", "query", "json", "data")
    _picturing = ("files",)

    def __init__(
        self,
        *,
        path: str,
        method: str = "GET",
        query: Mapping[str, Any] | None = None,
        json: Any = None,
        data: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        files_conn_id: str | None = None,
        authenticated: bool = True,
        idempotent: bool | None = None,
        output_path: str | None = None,
        output_conn_id: str | None = None,
        max_xcom_bytes: int = DEFAULT_MAX_XCOM_BYTES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # ``max_xcom_bytes`` is used only after the call. The call is possibly charged, so a wrong value must be
        # detected before the call.
        if type(max_xcom_bytes) is not int or max_xcom_bytes < 0:
            raise ValueError(f"max_xcom_bytes must be a whole number, at least 0, not {max_xcom_bytes!r}")
        self.path = path
        self.method = method
        self.query = query
        self.json = json
        self.data = data
        self.files = files
        self.files_conn_id = files_conn_id
        self.authenticated = authenticated
        self.idempotent = idempotent
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.max_xcom_bytes = max_xcom_bytes
        # If one of these arguments is set, its template must not render to an empty value. ``json`` is not in this
        # list, because an empty text is a valid JSON document.
        self._remember_given(
            "path", "query", "data", "files", "files_conn_id", "output_path", "output_conn_id"
        )

    def execute(self, context: Context) -> Any:
        """Make the call and return its answer, or the path of the written answer."""
        with translate_errors():
            self.check_rendered()
            endpoint = api.RawCall(
                self.method,
                self.path,
                self.query,
                self.json,
                self.data,
                idempotent=self.idempotent,
                files=self._files(),
                authenticated=self.authenticated,
            )
            check_output(self.output_path, self.output_conn_id)
            self.push_output_link(context, self.output_path, self.output_conn_id)
            # The body is built once before the call, so that a wrong body fails the task here and without a retry.
            endpoint.request()
        if endpoint.is_idempotent:
            return self._store(self.call(endpoint), endpoint)
        from airflow_provider_faceki.charged_call import ChargedCallState

        document, state = self.call_charged(context, endpoint), ChargedCallState(context)
        try:
            result = self._store(document, endpoint)
        except AirflowFailException:
            # The task fails, and Airflow makes no further try. If a person clears the task, the call must be made
            # again. ``give_up`` allows a cleared task to make the call.
            state.give_up()
            raise
        state.finish()
        return result

    def _store(self, document: Json, endpoint: api.RawCall) -> Any:
        """Write the answer to ``output_path``, if it is set. Return the task's result."""
        if self.output_path:
            path = self._write(self.output_path, document, endpoint)
            self.report_file(path)
            return path
        if not self.do_xcom_push:
            return document
        return self._for_xcom(storable(document))

    def _files(self) -> dict[str, api.Image]:
        if self.files is not None and not isinstance(self.files, Mapping):
            raise api.ValidationError(
                f"files must be a mapping of part names to URIs, not {type(self.files).__name__}"
            )
        files = self.files or {}
        check_part_names("files", files)
        return {
            name: self.hook.image(uri, name=name, conn_id=self.files_conn_id) for name, uri in files.items()
        }

    def _for_xcom(self, document: Json) -> Json:
        size = len(json.dumps(document))
        if size > self.max_xcom_bytes:
            raise AirflowFailException(
                f"FACEKI's response has {size} bytes, more than max_xcom_bytes={self.max_xcom_bytes} "
                "allows in XCom; set output_path to write it to a storage"
            )
        if self.multiple_outputs and not isinstance(document, dict):
            raise AirflowFailException(
                "multiple_outputs=True needs a response that is an object; this one is not"
            )
        return document

    def _write(self, path: str, document: Any, endpoint: api.RawCall) -> str:
        try:
            with translate_errors():
                return self.write_json(path, document, self.output_conn_id)
        except OSError as error:
            if endpoint.is_idempotent:
                raise
            raise AirflowFailException(
                "the call was made, but its response could not be written to output_path; it is not "
                "repeated automatically: clear the task to repeat it"
            ) from error


def check_output(uri: str | None, conn_id: str | None) -> None:
    """Raise an error if the output file certainly cannot be written.

    Use this check before a call that is possibly charged, so that the result of the call is not lost. The check sends
    no request to a remote storage, so it does not detect missing permissions there.

    :param uri: URI of the output file. If it is ``None``, nothing is checked.
    :param conn_id: Connection for the storage of ``uri``.
    :raises ValidationError: if the file can never be written.
    :raises StorageAccessError: if this process is not allowed to create files in the local folder.
    """
    if uri is not None:
        from airflow_provider_faceki import storage

        try:
            storage.check_path(uri, conn_id)
        except api.ValidationError as error:
            raise api.ValidationError(f"output_path: {error.message}") from None
