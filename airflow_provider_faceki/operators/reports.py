# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operator that writes the PDF report of a verification to storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_faceki import api
from airflow_provider_faceki.failures import translate_errors
from airflow_provider_faceki.links.faceki import FacekiOutputLink, FacekiRecordLink
from airflow_provider_faceki.operators.faceki import FacekiOperator, check_output

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class FacekiPdfReportOperator(FacekiOperator):
    """Write the PDF report of a verification to storage.

    XCom: the path of the written file. FACEKI does not publish the API path of its reports. Ask FACEKI for this path,
    and set it as ``pdf_report_path`` in the Connection's extra.

    :param request_id: FACEKI's id of the verification.
    :param output_path: URI to which the report is written. The file contains personal data.
    :param output_conn_id: Connection for the storage of ``output_path``. Default: the Connection in the URI, if there
        is one.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    custom_operator_name = "FACEKI report"
    operator_extra_links = (FacekiRecordLink(), FacekiOutputLink())
    _identifying = ("request_id",)
    template_fields: Sequence[str] = (
        *FacekiOperator.template_fields,
        "request_id",
        "output_path",
        "output_conn_id",
    )

    def __init__(
        self, *, request_id: str, output_path: str, output_conn_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.request_id = request_id
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self._remember_given("request_id", "output_path", "output_conn_id")

    def execute(self, context: Context) -> str:
        """Fetch the report, write it, and return its path."""
        from airflow_provider_faceki import storage

        with translate_errors():
            self.check_rendered()
            check_output(self.output_path, self.output_conn_id)
            self.push_output_link(context, self.output_path, self.output_conn_id)
            report = self.hook.call(api.FetchPdfReport(self.request_id))
            with report.file:
                path = storage.write_file(self.output_path, report.file, self.output_conn_id)
        self.report_file(path)
        self.push_record_link(context, self.request_id)
        return path
