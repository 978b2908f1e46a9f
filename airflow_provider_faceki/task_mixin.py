# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What the operators and the sensor share: hook, colours, copies, and the check of rendered arguments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from airflow_provider_faceki.api.values import check_identifier, is_missing
from airflow_provider_faceki.hooks.faceki import FacekiHook


class FacekiTaskMixin:
    """Mixin for classes of tasks that call FACEKI. Put it before Airflow's base class."""

    # White on dark green is readable on a light and on a dark page.
    ui_color = "#12675c"
    ui_fgcolor = "#ffffff"

    faceki_conn_id: str
    template_fields: Sequence[str]

    #: Template fields that were given when the DAG was parsed.
    _given: frozenset[str] = frozenset()
    #: Attributes of one execution, which a copy starts without.
    _transient: Sequence[str] = ()

    @cached_property
    def hook(self) -> FacekiHook:
        """Hook of this task's Connection."""
        return FacekiHook(self.faceki_conn_id)

    def _remember_given(self, *names: str) -> None:
        """Remember which arguments were given; call it at the end of ``__init__``.

        :param names: Template fields for which a missing value must not pass for an argument that was left out.
        """
        self._given |= {name for name in names if getattr(self, name) is not None}

    def check_rendered(self) -> None:
        """Refuse an argument that was given and rendered to nothing: its default is not what the author meant.

        :raises ValidationError: there is one; the text names it.
        """
        for name in sorted(self._given):
            value = getattr(self, name)
            if is_missing(value):
                check_identifier(name, value)

    def _cached_names(self) -> list[str]:
        """Return the names of values of one execution, which are made again when they are needed."""
        kind = type(self)
        return [
            name
            for name in self.__dict__
            if name in self._transient or isinstance(getattr(kind, name, None), cached_property)
        ]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]  # Airflow's: a dict
        cached = self._cached_names()
        return {name: value for name, value in state.items() if name not in cached}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # A cached value may hold open files and closures. Dropping it costs no more than to make it again.
        for name in self._cached_names():
            self.__dict__.pop(name, None)
        return super().__deepcopy__(memo)  # type: ignore[misc]  # Airflow's
