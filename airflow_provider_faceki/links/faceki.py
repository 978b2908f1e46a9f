# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Extra link of a task in the user interface: FACEKI's hosted page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


class FacekiHostedPageLink(BaseOperatorLink):
    """The page on which the person is verified, as the task that made the link returned it."""

    name = "FACEKI hosted page"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page's URL, or an empty string where the task has returned none.

        :param operator: The task's operator; not looked at.
        :param ti_key: The task instance, map index included.
        """
        # Not at the top: they import Airflow's database models, which parsing a DAG does not need.
        from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY, XCom

        made = XCom.get_value(ti_key=ti_key, key=XCOM_RETURN_KEY)
        url = made.get("url") if isinstance(made, dict) else None
        return url if isinstance(url, str) else ""
