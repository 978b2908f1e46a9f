# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Extra links of tasks in the user interface: FACEKI's hosted page, a record in FACEKI's portal, and the output.

A task computes the address and stores it as XCom. Therefore the user interface needs neither a Connection nor network
access.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

#: XCom keys of the addresses.
RECORD_URL_KEY = "record_url"
OUTPUT_URL_KEY = "output_url"


class _AddressLink(BaseOperatorLink):
    """Base class of the links. The address is the value of the XCom ``key``, or the value's field ``field``."""

    key: str | None = None
    field: str | None = None

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty text if the task has stored no address.

        :param operator: Operator of the task.
        :param ti_key: Key of the task instance, including its map index.
        """
        if self.key is not None and hasattr(ti_key, "xcom_push"):
            # Airflow 3's worker asks directly after the execution. It logs an error if an XCom does not exist.
            return str(getattr(operator, "link_urls", {}).get(self.key, ""))
        # These names import Airflow's database models, which DAG parsing does not need. Therefore the import is here.
        from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY, XCom

        found = XCom.get_value(ti_key=ti_key, key=self.key or XCOM_RETURN_KEY)
        if self.field is not None:
            found = found.get(self.field) if isinstance(found, dict) else None
        return found if isinstance(found, str) else ""


class FacekiHostedPageLink(_AddressLink):
    """Link to the page on which the person is verified. The URL comes from the return value of the link task."""

    name = "FACEKI hosted page"
    field = "url"


class FacekiRecordLink(_AddressLink):
    """Link to the record in FACEKI's portal, if the Connection contains the address of the portal's record pages."""

    name = "FACEKI record"
    key = RECORD_URL_KEY


class FacekiOutputLink(_AddressLink):
    """Link to the output of a task, if its storage has a web address."""

    name = "FACEKI output"
    key = OUTPUT_URL_KEY
