# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operator that selects the next tasks by FACEKI's decision."""

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
    """Select the downstream tasks by the decision in a summary, which a sensor or operator of this provider returns.

    This operator handles the decision about one person. ``docs/verification.md`` shows how to route many decisions. The
    task fails in these cases:

    - ``summary`` contains the results of a mapped task, or this operator itself is mapped. The task fails, because the
      decision about one person would select the tasks for all persons.
    - This operator is in a mapped task group, on Airflow 3.2 or later. The task fails, because these versions of
      Airflow also run the tasks that were not selected (https://github.com/apache/airflow/issues/67265).

    :param summary: The summary, usually the output of another task. A list must contain only summaries of one person.
        The last summary in the list is used.
    :param accepted: Task id or ids that run after the decision ACCEPTED.
    :param declined: Task id or ids that run after the decision DECLINED.
    :param review: Task id or ids that run after the decision REVIEW. Default: the value of ``otherwise``.
    :param otherwise: Task id or ids that run after a summary without a decision, after an empty list, or after a
        decision that FACEKI has not documented.
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
        """Return the ids of the selected downstream tasks.

        :raises AirflowFailException: if the task is mapped, if it is in a mapped task group (Airflow 3.2 and later), or
            if ``summary`` or a task id is not valid.
        """
        self._check_that_airflow_follows(context)
        summary = self.summary
        if isinstance(summary, Sequence) and not isinstance(summary, str | list | tuple):
            # Airflow passes the results of a mapped task as a lazy sequence. A sequence that is neither a list nor a
            # tuple is such a lazy sequence, so it is refused.
            raise AirflowFailException(f"summary contains the results of {len(summary)} tasks; {_FOR_ONE}")
        if isinstance(summary, list | tuple):
            summary = summary[-1] if summary else {"decision": None}
        if not isinstance(summary, Mapping) or "decision" not in summary:
            raise AirflowFailException("summary must be a FACEKI summary: a mapping with a decision")
        routes = {"ACCEPTED": self.accepted, "DECLINED": self.declined, "REVIEW": self.review}
        chosen = routes.get(str(summary["decision"]))
        if chosen is None:
            chosen = self.otherwise
        if isinstance(chosen, str):
            return chosen
        if not isinstance(chosen, list | tuple) or not all(isinstance(task_id, str) for task_id in chosen):
            raise AirflowFailException("accepted, declined, review and otherwise must be task ids")
        return list(chosen)

    def _check_that_airflow_follows(self, context: Context) -> None:
        from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS

        if getattr(context.get("ti"), "map_index", -1) < 0:
            return
        if self.get_closest_mapped_task_group() is None:
            raise AirflowFailException(
                f"a mapped branch would run all of its paths at the same time; {_FOR_ONE}"
            )
        if AIRFLOW_V_3_2_PLUS:
            raise AirflowFailException(
                "this version of Airflow also runs the tasks that a branch in a mapped task group did "
                f"not choose (apache/airflow#67265); {_FOR_ONE}"
            )
