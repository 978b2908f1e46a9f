# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Code that operators and sensor share: hook, arguments, extra links, colours, copies, and time limits of waits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import mask_secret

from airflow_provider_faceki import api
from airflow_provider_faceki.api.lazy import lazy_property
from airflow_provider_faceki.api.values import check_identifier, format_duration, is_maskable, is_missing
from airflow_provider_faceki.links.faceki import RECORD_URL_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.hooks.faceki import FacekiHook
    from airflow_provider_faceki.triggers.faceki import DecisionEvent

#: Default maximum pause in seconds between two polls of one waiting task: 40 minutes. With this maximum, a task that
#: waits for three days needs about 170 requests:
#:
#: - About 113 polls. The pause doubles from one minute to 40 minutes, so the first pauses are shorter.
#: - About 55 token requests. FACEKI's access token is valid for one hour, so every second poll needs a new token.
DEFAULT_MAX_WAIT_SECONDS = 2400.0
#: Airflow's own timeout of a deferred task is this number of seconds later than the deadline of the trigger. So the
#: trigger normally ends the wait. Airflow's timeout ends the wait only if no triggerer runs.
DEFERRAL_SLACK_SECONDS = 60.0


class FacekiTaskMixin:
    """Mixin for operators and sensors that call FACEKI.

    In the list of base classes, the mixin must stand before Airflow's base class.
    """

    # White text on dark green is readable on light pages and on dark pages.
    ui_color = "#12675c"
    ui_fgcolor = "#ffffff"

    faceki_conn_id: str
    template_fields: Sequence[str]

    #: Names of the template fields that must not render to an empty value; see :meth:`_remember_given`.
    _given: frozenset[str] = frozenset()
    #: Names of attributes that belong to one execution of the task. A copy of the task does not contain these
    #: attributes.
    _transient: Sequence[str] = ("_restarted_at",)
    #: Unix time at which this try started. The time is set only if Airflow reports the start of an earlier try as the
    #: start of this try.
    _restarted_at: float | None = None

    @lazy_property
    def hook(self) -> FacekiHook:
        """The hook for this task's Connection."""
        # Only a running task needs the hook, so parsing a DAG does not import it.
        from airflow_provider_faceki.hooks.faceki import FacekiHook

        return FacekiHook(self.faceki_conn_id)

    def started_at(self, context: Context) -> float:
        """Return the Unix time at which this try started.

        If Airflow has not set the start time, as in ``dag.test()`` of Airflow 2, return the current time.
        """
        if self._restarted_at is not None:
            return self._restarted_at
        start: Any = getattr(context.get("ti"), "start_date", None)
        return float(start.timestamp()) if start else time.time()

    def _begins_new_try(self, context: Context, try_number: object) -> bool:
        """Return ``True`` if a resumed task belongs to a later try than the task that was deferred.

        If a task is cleared after it has resumed, Airflow 3 does not begin the next try with ``execute``. Airflow
        resumes the next try with the event, the arguments and the start time of the earlier try. None of these values
        is valid for the next try.

        If the result is ``True``, the caller must call ``execute``. In this case the method sets the start time of the
        try to the current time, so that the time limits of the task begin again.

        :param try_number: Try number that the task passed to Airflow before the deferral. If the number is missing, the
            result is ``False``.
        """
        if isinstance(try_number, bool) or not isinstance(try_number, int):
            return False
        if try_number == context["ti"].try_number:
            return False
        self._restarted_at = time.time()
        return True

    def push_record_link(self, context: Context, request_id: str | None) -> None:
        """Store the address of a record's page in FACEKI's portal, for the task's extra link.

        If the address is not known, nothing is stored.

        :param request_id: FACEKI's id of the verification.
        """
        self.push_link(context, RECORD_URL_KEY, self.hook.settings.record_url(request_id))

    @lazy_property
    def link_urls(self) -> dict[str, str]:
        """The addresses of extra links that this execution of the task has stored, by XCom key."""
        return {}

    def push_link(self, context: Context, key: str, url: str | None) -> None:
        """Store the address of an extra link.

        :param key: XCom key of the address.
        :param url: The address. If it is None, nothing is stored.
        """
        if url is not None:
            self.link_urls[key] = url
            context["ti"].xcom_push(key=key, value=url)

    def _remember_given(self, *names: str) -> None:
        """Remember which of the named template fields have a value. A default of the operator is a value, too.

        Call this method at the end of ``__init__``. The method :meth:`check_rendered` later refuses a remembered field
        that renders to an empty value. A field with the value ``None`` is not remembered.

        :param names: Names of template fields.
        """
        self._given |= {name for name in names if getattr(self, name) is not None}

    def check_rendered(self) -> None:
        """Refuse an argument that the author of the DAG has set, if its template rendered to an empty value.

        A text for a missing value, such as ``'None'``, counts as empty. An empty value is not replaced by the default
        of the argument, because the author has not chosen the default.

        :raises ValidationError: if an argument is refused. The error text contains the argument's name.
        """
        for name in sorted(self._given):
            value = getattr(self, name)
            if is_missing(value):
                check_identifier(name, value)

    def _fetch_call(self, **filters: Any) -> api.FetchRecords:
        """Return the call that fetches the records that the task's arguments select.

        Airflow masks the link id in the logs of the task from then on.

        :param filters: Rendered arguments; see :meth:`.FetchRecords.parse`.
        :raises ValidationError: if an argument is refused; see :meth:`check_rendered` and :meth:`.FetchRecords.parse`.
        """
        self.check_rendered()
        endpoint = api.FetchRecords.parse(**filters)
        if endpoint.link is not None and is_maskable(endpoint.link):
            mask_secret(endpoint.link)
        return endpoint

    def _read_event(self, payload: object) -> DecisionEvent:
        """Return the trigger's event with which Airflow resumes this task."""
        # Only a resumed task needs the trigger, whose base class needs 20 ms to import.
        from airflow_provider_faceki.triggers.faceki import DecisionEvent

        return DecisionEvent.from_payload(payload)

    def _cached_names(self) -> list[str]:
        """Return the names of the attributes whose values belong to one execution of the task, such as ``hook``.

        These attributes are not copied and not pickled. A copy of the task creates them again when it needs them.
        """
        kind = type(self)
        return [
            name
            for name in self.__dict__
            if name in self._transient or isinstance(getattr(kind, name, None), lazy_property)
        ]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]  # Airflow returns a dict
        cached = self._cached_names()
        return {name: value for name, value in state.items() if name not in cached}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # The cached values are removed before the copy, because they possibly contain open files and closures, which
        # cannot be copied. The task and its copy create these values again when they need them.
        for name in self._cached_names():
            self.__dict__.pop(name, None)
        return super().__deepcopy__(memo)  # type: ignore[misc]  # Airflow's base class defines it


class WaitLimit(SimpleNamespace):
    """Time limit of a waiting task, with the name of the parameter that determines the limit.

    :param deadline: Unix time at which the wait ends.
    :param parameter: ``timeout``, ``execution_timeout``, ``review_timeout`` or ``resubmit_after``.
    :param seconds: Value of the parameter in seconds, for log lines and error texts. ``None`` if it is not known. After
        a deferral, :func:`restore_limit` sometimes knows only the deadline and the name of the parameter.
    """

    # The base class compares two limits by their values, as a named tuple would. It is not a named tuple, because the
    # creation of such a class would take a tenth of the import time of the operators.
    deadline: float
    parameter: str
    seconds: float | None

    def __init__(self, deadline: float, parameter: str, seconds: float | None = None) -> None:
        super().__init__(deadline=deadline, parameter=parameter, seconds=seconds)

    def __str__(self) -> str:
        return self.parameter if self.seconds is None else f"{self.parameter}={format_duration(self.seconds)}"

    @property
    def is_execution_timeout(self) -> bool:
        """Whether this limit comes from the task's ``execution_timeout``, and not from a different parameter."""
        return self.parameter == "execution_timeout"

    @property
    def timeout(self) -> timedelta:
        """Timeout for Airflow's ``defer``, as a time span from now.

        It ends :data:`DEFERRAL_SLACK_SECONDS` after the deadline, so that normally the trigger itself ends the wait.
        """
        return timedelta(seconds=max(0.0, self.deadline - time.time()) + DEFERRAL_SLACK_SECONDS)

    def to_kwargs(self, context: Context) -> dict[str, Any]:
        """Return the keyword arguments for the method with which the task continues after the deferral.

        They contain the try number, so that a later try recognises the arguments of an earlier try and ignores them.
        """
        return {
            "deadline": self.deadline,
            "parameter": self.parameter,
            "try_number": context["ti"].try_number,
        }

    def within(self, operator: Any, context: Context) -> WaitLimit:
        """Return the earlier of two time limits: this limit, or the end of the task's ``execution_timeout``.

        The provider applies ``execution_timeout``, because Airflow 3 does not apply it to a deferred task
        (apache/airflow#69678).
        """
        allowed: timedelta | None = operator.execution_timeout
        if allowed is None:
            return self
        deadline = operator.started_at(context) + allowed.total_seconds()
        if deadline >= self.deadline:
            return self
        return WaitLimit(deadline, "execution_timeout", allowed.total_seconds())


def restore_limit(deadline: object, parameter: object, limit: WaitLimit) -> WaitLimit:
    """Return the time limit that a task had before its deferral.

    The task passed ``deadline`` and ``parameter`` to Airflow before the deferral, and the result contains both. If
    ``deadline`` is missing or not a number, the result is ``limit``.

    :param deadline: Unix time of the original limit. It is missing in ``dag.test()`` of Airflow 3.
    :param parameter: Name of the operator parameter that set the original limit, such as ``execution_timeout``. If it
        is not text, the name of ``limit`` is used.
    :param limit: The limit, computed again after the deferral. Its deadline is possibly later than the original
        deadline, because in Airflow 3.0 to 3.2 each deferral changes the start time of the task
        (apache/airflow#63240).
    """
    known = parse_timestamp(deadline)
    if known is None:
        return limit
    if not isinstance(parameter, str) or parameter == limit.parameter:
        return WaitLimit(known, limit.parameter, limit.seconds)
    return WaitLimit(known, parameter)


def parse_timestamp(value: object) -> float | None:
    """Return ``value`` as a Unix time. If ``value`` is not a finite number, return ``None``.

    The value is checked, because it was passed to Airflow before a deferral, and Airflow possibly returns another
    value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
