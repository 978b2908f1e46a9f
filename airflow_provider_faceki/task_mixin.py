# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Code that operators and sensor share: hook, extra links, colours, copies, and the check of rendered arguments."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_faceki.api.lazy import lazy_property
from airflow_provider_faceki.api.values import check_identifier, is_missing
from airflow_provider_faceki.links.faceki import RECORD_URL_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.hooks.faceki import FacekiHook


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
