# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Go on by FACEKI's decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseBranchOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

TaskIds = str | Sequence[str]


class FacekiDecisionBranchOperator(BaseBranchOperator):
    """Choose the tasks that follow by the decision in a summary, such as a sensor or operator here returns.

    :param summary: The summary, or a list of them of which the last counts; most often another task's output.
    :param accepted: Task id, or ids, to follow ACCEPTED.
    :param declined: Task ids to follow DECLINED.
    :param review: Task ids to follow REVIEW. Default: ``otherwise``.
    :param otherwise: Task ids to follow no decision, or one that FACEKI has not documented.
    """

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
        summary = self.summary
        if isinstance(summary, Sequence) and not isinstance(summary, str):
            summary = summary[-1] if summary else {"decision": None}
        if not isinstance(summary, Mapping) or "decision" not in summary:
            raise AirflowFailException("summary must be a FACEKI summary: a mapping with a decision")
        routes = {"ACCEPTED": self.accepted, "DECLINED": self.declined, "REVIEW": self.review}
        chosen = routes.get(str(summary["decision"]))
        if chosen is None:
            chosen = self.otherwise
        return chosen if isinstance(chosen, str) else list(chosen)
