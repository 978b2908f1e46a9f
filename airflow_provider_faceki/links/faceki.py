# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Extra links of tasks in Airflow's user interface: to a hosted page, to a record in FACEKI's portal, or to the output.

Each task computes the address of its link and stores it as XCom. Therefore the user interface needs neither a
Connection nor network access to show the link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

#: XCom keys under which tasks store the addresses of their links. The first one is Airflow's key of the return value.
RETURN_VALUE_KEY = "return_value"
RECORD_URL_KEY = "record_url"
OUTPUT_URL_KEY = "output_url"


class _AddressLink(BaseOperatorLink):
    """Base class of the extra links. It reads the address from an XCom.

    ``key`` is the key of the XCom. If ``field`` is set, the XCom is a mapping, and the address is the value of
    ``field`` in this mapping.
    """

    key: str
    field: str | None = None

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the web address to which the link leads. If the task has stored no address, return an empty text.

        :param ti_key: Key of the task instance, including its map index.
        """
        if hasattr(ti_key, "xcom_push"):
            # The worker of Airflow 3 calls ``get_link`` directly after the execution of the task. In the worker,
            # reading an XCom that does not exist logs an error. Therefore the worker reads the link's address from the
            # operator's attribute ``link_urls``. All other processes read the address from XCom.
            return str(getattr(operator, "link_urls", {}).get(self.key, ""))
        # The import is here and not at the top, because it loads Airflow's database models, which DAG parsing does not
        # need.
        from airflow.providers.common.compat.sdk import XCom

        found = XCom.get_value(ti_key=ti_key, key=self.key)
        if self.field is not None:
            found = found.get(self.field) if isinstance(found, dict) else None
        return found if isinstance(found, str) else ""


class FacekiHostedPageLink(_AddressLink):
    """Link to the page on which the person is verified. Its address is in the return value of the task."""

    name = "FACEKI hosted page"
    key = RETURN_VALUE_KEY
    field = "url"


class FacekiRecordLink(_AddressLink):
    """Link to the record in FACEKI's portal.

    If the Connection does not contain the address of the portal's record pages, the link is empty.
    """

    name = "FACEKI record"
    key = RECORD_URL_KEY


class FacekiOutputLink(_AddressLink):
    """Link to the output of a task. If no web address of the output is known, the link is empty.

    For example, a local file has no web address.
    """

    name = "FACEKI output"
    key = OUTPUT_URL_KEY
