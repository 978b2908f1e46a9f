# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Extra link of a task in the user interface. It opens FACEKI's hosted page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


class FacekiHostedPageLink(BaseOperatorLink):
    """Link to the page on which the person is verified. The URL comes from the return value of the link task."""

    name = "FACEKI hosted page"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL of the page, or an empty text if the task has returned no URL.

        :param operator: Operator of the task. It is not used.
        :param ti_key: Key of the task instance, including its map index.
        """
        # These names import Airflow's database models, which DAG parsing does not need. Therefore the import is here.
        from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY, XCom

        made = XCom.get_value(ti_key=ti_key, key=XCOM_RETURN_KEY)
        url = made.get("url") if isinstance(made, dict) else None
        return url if isinstance(url, str) else ""
