# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operator that verifies a person by images.

By default, the verification is billed only once, even if the task is killed or retried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    conf,
)

from airflow_provider_faceki import api, metrics
from airflow_provider_faceki.api.arguments import DEFAULT_LOOKUP_TIMEOUT_SECONDS, check_one_of, check_seconds
from airflow_provider_faceki.api.lazy import lazy_property
from airflow_provider_faceki.api.values import format_duration, loggable, storable
from airflow_provider_faceki.charged_call import ChargedCallState, digest
from airflow_provider_faceki.failures import fail_if_declined, fail_with_unknown_outcome, translate_errors
from airflow_provider_faceki.hooks.documents import load_documents
from airflow_provider_faceki.links.faceki import FacekiOutputLink, FacekiRecordLink
from airflow_provider_faceki.operators.faceki import check_output
from airflow_provider_faceki.operators.images import _ImageOperator, images_fingerprint
from airflow_provider_faceki.task_mixin import (
    DEFAULT_MAX_WAIT_SECONDS,
    WaitLimit,
    parse_timestamp,
    restore_limit,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.triggers.faceki import DecisionEvent

#: Default of ``resubmit_after`` in seconds: 120 plus 30. FACEKI's own apps wait 120 seconds for the answer to a
#: verification. A record that does not exist 30 seconds after that is unlikely to appear later.
DEFAULT_RESUBMIT_AFTER_SECONDS = 150.0
#: Initial and maximum seconds between two polls for the record of a verification that an earlier try possibly sent. A
#: task that waits in the worker always uses the initial value.
MIN_RECONCILE_INTERVAL_SECONDS = 5.0
MAX_RECONCILE_INTERVAL_SECONDS = 30.0
#: Initial seconds between two polls for a reviewer's decision.
REVIEW_POLL_INTERVAL_SECONDS = 60.0
#: Default of ``review_timeout``, the maximum seconds to wait for a review.
DEFAULT_REVIEW_TIMEOUT_SECONDS = 7 * 24 * 3600.0

RESUBMIT_CHOICES = ("if_absent", "never", "always")


class _Derived:
    def __repr__(self) -> str:
        return "derived"


_DERIVED: Any = _Derived()


class FacekiKycVerificationOperator(_ImageOperator):
    """Verify a person by a selfie and one to three documents. By default, each verification is billed only once.

    Before a verification is sent, the operator checks the images and searches for a verification with this task's
    ``record_identifier``. If such a verification exists, it becomes the result, and nothing is sent. If an earlier try
    possibly sent a verification, the task first waits for its record, for up to ``resubmit_after`` seconds. Only if no
    record appears, the task sends a new verification. See ``docs/billing.md``.

    XCom: the summary of the record (ids, decision, codes, flags, times, ``retake_selfie``), without personal data. By
    default, the task also succeeds if the person is declined (see ``fail_on_decline``). It also succeeds if FACEKI's
    checks reject an image.
    https://docs.faceki.com/api-integration/verification-apis/perform-kyc-verification

    :param selfie: URI of the selfie, in any storage that Airflow supports. JPEG, PNG, WEBP or HEIC.
    :param documents: One to three documents. Each document is ``{"front": uri, "back": uri}`` (a passport without
        ``back``) or only the URI of its front side.
    :param workflow_id: Id of a workflow from the FACEKI portal. Default: the workflow in the Connection.
    :param record_identifier: Your own id of this verification. Use each id only once. Default: an id that is derived
        from the task instance. The derived id is the same for all retries, and it does not depend on the person.
        Therefore set an id of your own if the task can be cleared, or mapped again, for a different person.
    :param image_conn_id: Connection for the storage of the images. Default: the Connection in the URI, if there is
        one.
    :param output_path: URI to which the full record is written as JSON. The file contains personal data.
    :param output_conn_id: Connection for the storage of ``output_path``. Default: the Connection in the URI, if there
        is one.
    :param check_rules: Whether the documents are checked against the workflow's rules before the charged call. Default
        ``True``. FACEKI does not document the URL of the rules. If the rules cannot be fetched, the error determines
        what happens:

        - The URL does not exist, or its answer is unreadable: the check is skipped.
        - The service fails (HTTP 5xx) or does not answer: the check is skipped. Exception: before the task sends a
          possibly sent verification again, it must know whether the workflow stores records; see ``resubmit``. In this
          case, this try fails, and Airflow can retry the task.
        - Too many requests (HTTP 429): this try fails, and Airflow can retry the task.
        - An error about credentials, credit or the workflow: the task fails without a retry.
    :param resize_to: Maximum length in pixels of the longer side. Larger images are reduced to this length, which
        needs the package extra ``images``. FACEKI's SDK for React Native uses 1920. Default: images are sent
        unchanged.
    :param allowed_image_prefixes: Folders from which images are accepted, as absolute local paths or as URIs without
        a Connection. Default: any folder. Set this parameter if the images' URIs come from outside the DAG.
    :param resubmit: What happens if an earlier try possibly sent the verification, and FACEKI has no record of it.

        - ``"if_absent"`` (default): The verification is sent again after ``resubmit_after``. Exception: if
          ``check_rules`` shows that the workflow stores no records, the task fails, because a missing record then
          proves nothing.
        - ``"never"``: The task fails, so the verification is sent at most once.
        - ``"always"``: Each try sends the verification, even if FACEKI already has it, and each try is billed.
    :param resubmit_after: Seconds to wait for a verification that an earlier try possibly sent, counted from the start
        of this try. If FACEKI has no record after this time, the task assumes that nothing was sent. Default 150.
    :param lookup_timeout: If FACEKI's answer to a verification is lost, the same try searches for the record. This is
        the maximum duration of the search in seconds. Default 60.
    :param fail_on_decline: Whether the task fails if the decision is DECLINED. Default ``False``.
    :param wait_for_review: Whether the task waits until a human reviewer at FACEKI has decided a case in REVIEW. This
        needs ``deferrable=True``. Default ``False``, so REVIEW is returned as the result.
    :param review_timeout: Seconds to wait for the review, counted from the start of the try. Default 7 days. If
        ``execution_timeout`` ends earlier, it ends the wait.
    :param deferrable: Whether the task waits in the triggerer, for a review or for a verification that an earlier try
        possibly sent. If ``False``, it waits in the worker. Default: ``[operators] default_deferrable``.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = (
        *_ImageOperator.template_fields,
        "selfie",
        "documents",
        "workflow_id",
        "record_identifier",
        "output_path",
        "output_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"documents": "json"}
    custom_operator_name = "FACEKI verification"
    operator_extra_links = (FacekiRecordLink(), FacekiOutputLink())

    #: State of the charged call. Airflow 3.3 and later store this state between tries. The attribute is ``None`` until
    #: this execution uses the state for the first time.
    _state: ChargedCallState | None = None
    _transient = (*_ImageOperator._transient, "_state")
    _identifying = ("record_identifier",)
    _picturing = ("selfie", "documents")

    def __init__(
        self,
        *,
        selfie: str,
        documents: Sequence[Mapping[str, str | None] | str],
        workflow_id: str | None = None,
        record_identifier: str | None = _DERIVED,
        image_conn_id: str | None = None,
        output_path: str | None = None,
        output_conn_id: str | None = None,
        check_rules: bool = True,
        resize_to: int | None = None,
        allowed_image_prefixes: Sequence[str] | None = None,
        resubmit: str = "if_absent",
        resubmit_after: float = DEFAULT_RESUBMIT_AFTER_SECONDS,
        lookup_timeout: float = DEFAULT_LOOKUP_TIMEOUT_SECONDS,
        fail_on_decline: bool = False,
        wait_for_review: bool = False,
        review_timeout: float = DEFAULT_REVIEW_TIMEOUT_SECONDS,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_conn_id=image_conn_id,
            resize_to=resize_to,
            allowed_image_prefixes=allowed_image_prefixes,
            **kwargs,
        )
        check_one_of("resubmit", resubmit, RESUBMIT_CHOICES)
        if wait_for_review and not deferrable:
            raise ValueError("wait_for_review needs deferrable=True: a review takes hours or days")
        check_seconds("resubmit_after", resubmit_after)
        check_seconds("lookup_timeout", lookup_timeout)
        check_seconds("review_timeout", review_timeout)
        self.selfie = selfie
        self.documents = documents
        self.workflow_id = workflow_id
        # If the argument ``record_identifier`` is omitted, the identifier is derived from the ids of the task instance.
        # An omitted argument must be distinguished from ``None``. In a mapped task, ``None`` means that the input of
        # this task instance contains no identifier, which is an error.
        self._is_derived = record_identifier is _DERIVED
        self.record_identifier = None if self._is_derived else record_identifier
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.check_rules = check_rules
        self.resubmit = resubmit
        self.resubmit_after = resubmit_after
        self.lookup_timeout = lookup_timeout
        self.fail_on_decline = fail_on_decline
        self.wait_for_review = wait_for_review
        self.review_timeout = review_timeout
        self.deferrable = deferrable
        self._remember_given("selfie", "record_identifier", "output_path", "output_conn_id")

    def execute(self, context: Context) -> Any:
        """Return the summary of the verification with the task's identifier. If there is none, send a new verification.

        If an earlier try possibly sent the verification, the task first waits for its record. If a record appears, it
        is the result, and nothing is sent. If no record appears, ``resubmit`` determines whether the task sends a new
        verification or fails. With ``resubmit="always"``, the task does not wait, and sends a new verification even if
        FACEKI already has one.
        """
        self._state = None
        with translate_errors():
            self._check_arguments(context)
        if context["ti"].try_number == 1:
            # Only the first try checks the images before everything else. A later try first looks for the
            # verification at FACEKI. If FACEKI has the verification, the try needs no images, and it succeeds even if
            # the images no longer exist.
            with translate_errors():
                self.log.info("A selfie and %d document(s) can be sent", len(self._images[1]))
        if self.resubmit == "always":
            return self._submit(context, self._known_request_ids(context))
        self._open_state(context).check_images()
        return self._find_or_submit(context, self._resubmit_at(context))

    def _check_arguments(self, context: Context) -> None:
        self.check_rendered()
        index = context["ti"].map_index
        if self.record_identifier is None and not self._is_derived and index is not None and index >= 0:
            raise api.ValidationError(
                "record_identifier is None in a mapped task, and you would not find the person by a "
                "derived identifier: set one for each mapped task instance, or leave the argument out"
            )
        check_output(self.output_path, self.output_conn_id)

    def resume_reconciliation(
        self,
        context: Context,
        event: object = None,
        resubmit_at: object = None,
        deadline: object = None,
        parameter: object = None,
        try_number: object = None,
    ) -> Any:
        """Continue after the wait for a verification that an earlier try possibly sent.

        The event is not trusted, so the method requests the record from FACEKI first.

        :param event: Payload of the trigger event.
        :param resubmit_at: Unix time until which the task waits for the record. If FACEKI has no record at this time,
            the task sends the verification, or fails with ``resubmit="never"``. The time was computed before the
            deferral. It is not computed again, because in Airflow 3.0 to 3.2 each deferral changes the start time of
            the task (https://github.com/apache/airflow/issues/63240). Airflow's ``dag.test()`` does not pass this
            argument. If the argument is missing, the current time is used after a timeout event. After any other event,
            the time is computed again.
        :param deadline: Unix time at which the wait ends, as computed before the deferral: ``resubmit_at`` or the end
            of ``execution_timeout``, whichever is earlier. If ``execution_timeout`` ends the wait, and FACEKI has no
            decision, the task fails.
        :param parameter: Name of the parameter that set the deadline: ``resubmit_after`` or ``execution_timeout``.
        :param try_number: Number of the try that was deferred. If Airflow calls this method in a later try, the method
            calls :meth:`execute` instead; see ``_begins_new_try``.
        """
        if self._begins_new_try(context, try_number):
            return self.execute(context)
        self._state = None
        self._open_state(context).check_images()
        given = self._read_event(event)
        known, computed = parse_timestamp(resubmit_at), self._resubmit_at(context)
        limit = restore_limit(
            deadline, parameter, self._reconcile_limit(context, known or computed or time.time())
        )
        if known is None and given.status == "timeout" and not limit.is_execution_timeout:
            # ``resubmit_at`` is the time until which the task waits for the record. Airflow did not pass it to this
            # method. But the trigger sends a timeout event only after this time. Therefore the wait is over, and the
            # current time is used as its end.
            known = time.time()
        if known is not None:
            # ``resubmit_at`` is the time until which this execution waits for the record. It was computed before the
            # deferral. During the deferral, another execution has possibly begun to send the verification, and has
            # stored an intent (a note with the current time). In this case, the wait is extended, so that it ends
            # ``resubmit_after`` seconds after the time in the intent.
            computed = min(known, time.time() + self.resubmit_after)
            intent_at = self._open_state(context).intent_at
            if intent_at is not None:
                computed = max(computed, intent_at + self.resubmit_after)
        if given.status != "timeout" and time.time() < limit.deadline:
            return self._find_or_submit(context, computed, given)
        return self._find_or_submit(context, computed, given, limit)

    def resume_review(
        self,
        context: Context,
        event: object = None,
        deadline: object = None,
        parameter: object = None,
        try_number: object = None,
    ) -> Any:
        """Continue after the wait for a reviewer's decision.

        The event is not trusted, so the method requests the record from FACEKI first.

        :param event: Payload of the trigger event.
        :param deadline: Unix time at which the wait ends. It was computed before the deferral.
        :param parameter: Name of the parameter that set the deadline: ``review_timeout`` or ``execution_timeout``.
        :param try_number: Number of the try that was deferred. If Airflow calls this method in a later try, the method
            calls :meth:`execute` instead; see ``_begins_new_try``.
        """
        if self._begins_new_try(context, try_number):
            return self.execute(context)
        self._state = None
        self._open_state(context).check_images()
        found = self._find(context)
        if found is None:
            raise AirflowFailException(
                "FACEKI no longer returns the verification that was in review; another try would send "
                "a new verification, which is charged, so none is sent"
            )
        limit = restore_limit(deadline, parameter, self._review_limit(context))
        if self.wait_for_review and found.decision is api.Decision.REVIEW:
            given = self._read_event(event)
            if given.status == "timeout":
                # The timeout event itself shows that the wait has ended. The deadline is not compared with the current
                # time, because the deadline is possibly wrong. If Airflow has lost the deadline, it is computed again
                # from the start time of the task, which Airflow possibly changed during the deferral.
                raise self._review_timed_out(limit)
            given.raise_for_status(self.faceki_conn_id)
        return self._finish(context, found, limit)

    def _resubmit_at(self, context: Context) -> float | None:
        return self._open_state(context).resubmit_at(self.resubmit_after, self.started_at(context))

    def _find_or_submit(
        self,
        context: Context,
        resubmit_at: float | None,
        given: DecisionEvent | None = None,
        expired: WaitLimit | None = None,
    ) -> Any:
        """Return the summary of the verification that FACEKI already has. If there is none, send a new verification.

        If an earlier try possibly sent a verification, first wait for its record until ``resubmit_at``. If there is no
        record at this time, send a new verification. Exception: with ``resubmit="never"``, or if the workflow stores no
        records, the task fails.

        :param resubmit_at: Unix time until which the record is awaited. ``None`` means that there is no verification of
            an earlier try to wait for.
        :param given: Event of the trigger. ``None`` if the task was not deferred.
        :param expired: Time limit that ended the wait in the triggerer. ``None`` if there was no such wait, or if it
            ended for another reason. If ``execution_timeout`` ended the wait before ``resubmit_at``, and FACEKI has no
            decision yet, the task fails. Any other limit is treated like ``None``.
        """
        found = self._find(context)
        may_resubmit = resubmit_at is None or time.time() >= resubmit_at
        if found is not None and (found.decision is not None or may_resubmit):
            self.log.info(
                "FACEKI already has verification %s of this task",
                _loggable_id(found.record),
            )
            return self._finish(context, found)
        if resubmit_at is None:
            return self._submit(context)
        if found is None and not self._are_records_stored(is_decisive=may_resubmit):
            fail_with_unknown_outcome(
                "an earlier try may have sent this verification, and the workflow stores no records that "
                "would show it: look at FACEKI's portal, then clear the task with resubmit='always' to "
                "send it again",
                self.faceki_conn_id,
            )
        if not may_resubmit:
            if expired is not None and expired.is_execution_timeout:
                raise AirflowTaskTimeout(
                    f"{expired} ended before FACEKI had time to finish what an earlier try may have sent"
                )
            if given is not None:
                given.raise_for_status(self.faceki_conn_id)
            return self._reconcile(context, resubmit_at)
        if self.resubmit == "never":
            fail_with_unknown_outcome(
                "an earlier try may have sent this verification, FACEKI has no record of it, and "
                "resubmit='never': look at FACEKI's portal, then clear the task with another resubmit",
                self.faceki_conn_id,
            )
        self.log.info(
            "FACEKI has no record of an earlier try, and has had time to finish one; sending it now"
        )
        return self._submit(context)

    def _are_records_stored(self, *, is_decisive: bool) -> bool:
        """Return ``False`` if the workflow's rules say that FACEKI stores no records. Otherwise return ``True``.

        The caller needs this result if FACEKI has no record of a possibly sent verification. If the result is
        ``False``, the verification was possibly sent although there is no record, and the caller fails the task. If
        ``check_rules`` is false, or if FACEKI has no endpoint for the rules, the result is ``True``.

        :param is_decisive: Whether the wait for the record is over. The value matters only if the service fails or does
            not answer the request for the rules. If the wait is over, an error is raised, because the rules possibly
            say that FACEKI stores no records. If the wait is not over, the result is ``True``, and the caller continues
            to wait.
        """
        from airflow_provider_faceki.api.endpoints.workflows import are_records_stored

        if not self.check_rules:
            return True
        with translate_errors():
            workflow_id = self.hook.workflow(self.workflow_id)
            rules = self.hook.workflow_rules(workflow_id)
            fetch = partial(self.hook.get_workflow_rules, workflow_id)
            return are_records_stored(rules, fetch, is_decisive=is_decisive)

    def _reconcile_limit(self, context: Context, resubmit_at: float) -> WaitLimit:
        return WaitLimit(resubmit_at, "resubmit_after", self.resubmit_after).within(self, context)

    def _reconcile(self, context: Context, resubmit_at: float) -> Any:
        self.log.info(
            "An earlier try may have sent the verification of %s; looking for it for %s",
            loggable(self._identifier(context)),
            format_duration(resubmit_at - time.time()),
        )
        if self.deferrable:
            limit = self._reconcile_limit(context, resubmit_at)
            self._defer_until(
                context,
                limit,
                "resume_reconciliation",
                {"resubmit_at": resubmit_at},
                poke_interval=MIN_RECONCILE_INTERVAL_SECONDS,
                max_wait=MAX_RECONCILE_INTERVAL_SECONDS,
            )
        while (left := resubmit_at - time.time()) > 0:
            time.sleep(min(MIN_RECONCILE_INTERVAL_SECONDS, left))
            if self._is_found(context):
                break
        return self._find_or_submit(context, resubmit_at)

    def _is_found(self, context: Context) -> bool:
        try:
            found = self._find(context)
        except api.FacekiError as error:
            self.log.warning("Poll failed, and is tolerated: %s", error)
            return False
        return found is not None and found.decision is not None

    def _submit(self, context: Context, known_request_ids: frozenset[str] = frozenset()) -> Any:
        state = self._open_state(context)
        with translate_errors():
            endpoint = self._endpoint(context, known_request_ids)
        if not state.acquire():
            return self._await_other_execution(context)
        with translate_errors():
            made = state.send(self.hook, endpoint)
        state.save(made)
        self.log.info(
            "FACEKI verified %s: request %s, %s",
            loggable(self._identifier(context)),
            _loggable_id(made.record),
            made.decision,
        )
        return self._finish(context, made)

    def _await_other_execution(self, context: Context) -> Any:
        reason = "another execution of this task instance is sending this verification"
        if self._open_state(context).is_store_slow:
            reason = "Airflow's task state store is slow, so another execution is possibly sending this verification"
        self.log.warning("Not sent: %s", reason)
        if self.resubmit == "always":
            raise AirflowException(reason)
        return self._find_or_submit(context, self._resubmit_at(context))

    def _endpoint(self, context: Context, known: frozenset[str]) -> api.PerformKycVerification:
        workflow_id = self.hook.workflow(self.workflow_id)
        selfie, documents = _with_fence(*self._images, self._open_state(context).check_fence)
        rules = self.hook.workflow_rules(workflow_id) if self.check_rules else None
        if rules is not None:
            api.check_documents(rules, documents)
        return api.PerformKycVerification(
            workflow_id=workflow_id,
            selfie=selfie,
            documents=documents,
            record_identifier=self._identifier(context),
            lookup_timeout=self.lookup_timeout,
            known_request_ids=known,
        )

    @lazy_property
    def _images(self) -> tuple[api.Image, list[api.Document]]:
        return self.load("selfie", self.selfie), load_documents(self.load, self.documents)

    def _identifier(self, context: Context) -> str:
        given = self.record_identifier
        return derived_identifier(context["ti"]) if given is None else given

    def _open_state(self, context: Context) -> ChargedCallState:
        """Return the state of this task's charged call. One execution always gets the same object."""
        if self._state is None:
            is_given = self.record_identifier is not None
            images = None if is_given else images_fingerprint(self.selfie, self.documents)
            self._state = ChargedCallState(context, self._identifier(context), images)
        return self._state

    def _find(self, context: Context) -> api.KycVerification | None:
        """Ask FACEKI for the verification of this task, and return it.

        The lookup uses the request id that an earlier try saved. If no request id is saved, the lookup uses the task's
        identifier. If FACEKI has no record, return the outcome that an earlier try saved. If there is no saved outcome,
        return ``None``.
        """
        saved = self._open_state(context).load()
        with translate_errors():
            return self.hook.call(self._lookup(context, saved)) or saved

    def _lookup(self, context: Context, made: api.KycVerification | None) -> api.FindKycVerification:
        request_id = made.record.request_id if made else None
        if request_id:
            return api.FindKycVerification(request_id=request_id)
        return api.FindKycVerification(record_identifier=self._identifier(context))

    def _known_request_ids(self, context: Context) -> frozenset[str]:
        with translate_errors():
            endpoint = api.FetchRecords(record_identifier=self._identifier(context))
        return frozenset(record.request_id for record in self.call(endpoint) if record.request_id)

    def _finish(self, context: Context, made: api.KycVerification, limit: WaitLimit | None = None) -> Any:
        if self.wait_for_review and made.decision is api.Decision.REVIEW:
            self._await_review(context, made.record.request_id, limit or self._review_limit(context))
        with translate_errors():
            made = self._complete(context, made)
            if self.output_path:
                path = self.write_json(self.output_path, dict(made.record.document), self.output_conn_id)
                context["ti"].xcom_push(key="output_path", value=path)
                self.report_file(path, 1)
        self.push_record_link(context, made.record.request_id)
        # A deferred task is executed several times. Airflow reads the extra links that the last execution has stored.
        # Therefore the links are stored here, after the last possible deferral.
        self.push_output_link(context, self.output_path, self.output_conn_id)
        metrics.count_decision(made.decision)
        fail_if_declined(made.record if self.fail_on_decline else None)
        return storable(made.summary())

    def _complete(self, context: Context, made: api.KycVerification) -> api.KycVerification:
        # FACEKI's answer contains little more than the decision. The reasons for the decision are only in the record.
        # Therefore the record is fetched in two cases: the person was not accepted and no reason is known yet, or the
        # record must be written to ``output_path``.
        is_enough = made.decision is api.Decision.ACCEPTED or bool(made.record.error_codes)
        if made.is_whole or (is_enough and not self.output_path):
            return made
        try:
            whole = self.hook.call(self._lookup(context, made))
        except api.FacekiError as error:
            if self.output_path:
                raise
            self.log.warning(
                "The record cannot be fetched, so the summary contains only FACEKI's response: %s", error
            )
            return made
        if whole is None:
            self.log.warning(
                "FACEKI stores no record of this verification; the summary contains only its response"
            )
        return whole or made

    def _review_limit(self, context: Context) -> WaitLimit:
        deadline = self.started_at(context) + self.review_timeout
        return WaitLimit(deadline, "review_timeout", self.review_timeout).within(self, context)

    def _await_review(self, context: Context, request_id: str | None, limit: WaitLimit) -> None:
        if time.time() >= limit.deadline:
            raise self._review_timed_out(limit)
        self.log.info(
            "The decision is REVIEW; waiting for FACEKI's reviewers for %s at the most (%s)",
            format_duration(limit.deadline - time.time()),
            limit.parameter,
        )
        self._defer_until(
            context,
            limit,
            "resume_review",
            {},
            poke_interval=REVIEW_POLL_INTERVAL_SECONDS,
            max_wait=DEFAULT_MAX_WAIT_SECONDS,
            wait_for_review=True,
            request_id=request_id,
        )

    def _review_timed_out(self, limit: WaitLimit) -> BaseException:
        error = AirflowTaskTimeout if limit.is_execution_timeout else AirflowException
        return error(f"FACEKI's review took longer than {limit}")

    def _defer_until(
        self,
        context: Context,
        limit: WaitLimit,
        method_name: str,
        more_kwargs: dict[str, Any],
        *,
        poke_interval: float,
        max_wait: float,
        wait_for_review: bool = False,
        request_id: str | None = None,
    ) -> None:
        # This import is inside the function, because Airflow's trigger base class needs 20 ms to import, and only a
        # task that waits uses it.
        from airflow_provider_faceki.triggers.faceki import FacekiKycDecisionTrigger

        self.defer(
            trigger=FacekiKycDecisionTrigger(
                faceki_conn_id=self.faceki_conn_id,
                deadline=limit.deadline,
                request_id=request_id,
                record_identifier=None if request_id else self._identifier(context),
                wait_for_review=wait_for_review,
                poke_interval=poke_interval,
                max_wait=max_wait,
            ),
            method_name=method_name,
            kwargs={**more_kwargs, **limit.to_kwargs(context)},
            timeout=limit.timeout,
        )


def derived_identifier(ti: Any) -> str:
    """Return an identifier that is unique to a task instance and that is the same in all its retries.

    The identifier is a hash of the ids of DAG, run, task and map index. The ids are hashed, because together they can
    exceed FACEKI's maximum length, and because they would reveal the names of DAGs to FACEKI.

    :param ti: Airflow's task instance.
    """
    return f"airflow-{digest(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)}"


def _with_fence(
    selfie: api.Image, documents: Sequence[api.Document], fence: Callable[[], None]
) -> tuple[api.Image, list[api.Document]]:
    def fenced(document: api.Document) -> api.Document:
        back = replace(document.back, fence=fence) if document.back is not None else None
        return api.Document(replace(document.front, fence=fence), back)

    return replace(selfie, fence=fence), [fenced(document) for document in documents]


def _loggable_id(record: api.VerificationRecord) -> str:
    """Return FACEKI's id of a verification for a log line.

    Two kinds of id are replaced by the text ``(not shown here)``: an id without a digit, because it is possibly the
    name of a person, and an id with characters that :func:`loggable` does not accept.
    """
    request_id = record.request_id or ""
    return loggable(request_id if any(map(str.isdigit, request_id)) else None)
