# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Filter of a record request, as operators and the sensor take it: checked at parse time, read when rendered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import mask_secret

from airflow_provider_faceki import api
from airflow_provider_faceki.api.protocol.links import check_not_link, read_link_id


def check_one_filter(**filters: Any) -> None:
    """Refuse none or several filters while the DAG is parsed. Templates and XComArgs count as given.

    :param filters: Value by parameter name.
    :raises ValueError: not exactly one is given.
    """
    given = [name for name, value in filters.items() if value is not None]
    if len(given) != 1:
        names = ", ".join(list(filters)[:-1])
        raise ValueError(
            f"give exactly one of {names} and {list(filters)[-1]}; found {' and '.join(given) or 'none'}"
        )


def record_filter(
    *,
    link: str | Mapping[str, Any] | None = None,
    request_id: str | None = None,
    record_identifier: str | None = None,
    face_id: str | None = None,
) -> api.FetchRecords:
    """Return the call for a rendered filter. A link is masked.

    :param link: Link id, URL of the hosted page, or output of the link task.
    :param request_id: FACEKI's id of one verification.
    :param record_identifier: Your own id.
    :param face_id: FACEKI's id of a person.
    :raises ValidationError: not exactly one is given, or its value belongs to another parameter.
    """
    if link is not None:
        link = read_link_id("link", link)
        mask_secret(link)
    ids = {"request_id": request_id, "record_identifier": record_identifier, "face_id": face_id}
    for name, value in ids.items():
        check_not_link(name, value)
    return api.FetchRecords(link=link, **ids)
