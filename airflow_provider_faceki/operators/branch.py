# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operator that chooses the next tasks by FACEKI's decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseBranchOperator

from airflow_provider_faceki.task_mixin import FacekiTaskMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

TaskIds = str | Sequence[str]

_FOR_ONE = "a branch is for one person: see docs/verification.md for many"


class FacekiDecisionBranchOperator(BaseBranchOperator):
    """Choose the tasks that follow by the decision in a summary, such as a sensor or operator here returns.

    A branch is for one person. The results of a mapped task are refused, as one person's would decide for all. So is a
    branch in a mapped task group on Airflow 3.2 and later, where Airflow also runs the tasks that it did not choose
    (https://github.com/apache/airflow/issues/67265). ``docs/verification.md`` shows how to route many decisions.

    :param summary: The summary, or a list of them (of one person) of which the last counts; most often another
        task's output.
    :param accepted: Task id, or ids, to follow ACCEPTED.
    :param declined: Task ids to follow DECLINED.
    :param review: Task ids to follow REVIEW. Default: ``otherwise``.
    :param otherwise: Task ids to follow no decision, or one that FACEKI has not documented.
    """

    custom_operator_name = "FACEKI branch"
    ui_color = FacekiTaskMixin.ui_color
    ui_fgcolor = FacekiTaskMixin.ui_fgcolor
    template_fields: Sequence[str] = ("summary", "accepted", "declined", "review", "otherwise")

    def __init__(
        self,
        *,
        summary: Any,
        accepted: TaskIds,
        declined: TaskIds,
        otherwise: TaskIds,
        review: TaskIds | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.summary = summary
        self.accepted = accepted
        self.declined = declined
        self.review = review
        self.otherwise = otherwise

    def choose_branch(self, context: Context) -> str | list[str]:
        """Return the ids of the tasks to follow."""
        self._check_that_airflow_follows(context)
        summary = self.summary
        if isinstance(summary, Sequence) and not isinstance(summary, str | list | tuple):
            # The results of a mapped task are a lazy sequence of Airflow's own.
            raise AirflowFailException(f"summary holds what {len(summary)} tasks returned; {_FOR_ONE}")
        if isinstance(summary, list | tuple):
            summary = summary[-1] if summary else {"decision": None}
        if not isinstance(summary, Mapping) or "decision" not in summary:
            raise AirflowFailException("summary must be a FACEKI summary: a mapping with a decision")
        routes = {"ACCEPTED": self.accepted, "DECLINED": self.declined, "REVIEW": self.review}
        chosen = routes.get(str(summary["decision"]))
        if chosen is None:
            chosen = self.otherwise
        return chosen if isinstance(chosen, str) else list(chosen)

    def _check_that_airflow_follows(self, context: Context) -> None:
        from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS

        if getattr(context.get("ti"), "map_index", -1) < 0:
            return
        if self.get_closest_mapped_task_group() is None:
            raise AirflowFailException(f"a branch that is mapped would follow every way at once; {_FOR_ONE}")
        if AIRFLOW_V_3_2_PLUS:
            raise AirflowFailException(
                "this Airflow runs what a branch in a mapped task group did not choose (apache/airflow#67265); "
                f"{_FOR_ONE}"
            )
