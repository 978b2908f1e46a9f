# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Convert the rendered arguments of an operator or the sensor into the call that fetches records from FACEKI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import mask_secret

from airflow_provider_faceki import api
from airflow_provider_faceki.api.values import UUID_PATTERN, as_link_id, check_identifier, is_maskable


def record_filter(
    *,
    link: str | Mapping[str, Any] | None = None,
    request_id: str | None = None,
    record_identifier: str | None = None,
    face_id: str | None = None,
) -> api.FetchRecords:
    """Return the call that fetches the records of one link, verification, identifier or person.

    Exactly one argument must be set. The link id is registered as a secret, so Airflow masks it in logs.

    :param link: Link id, URL of the hosted page, or output of the task that created the link.
    :param request_id: FACEKI's id of one verification.
    :param record_identifier: Your own identifier of the verification.
    :param face_id: FACEKI's id of a person.
    :raises ValidationError: if no argument or more than one argument is set, or if a value has a wrong form. For
        example, a URL is not a ``request_id``.
    """
    ids = {"request_id": request_id, "record_identifier": record_identifier, "face_id": face_id}
    for name, value in ids.items():
        _check_not_link(name, value)
    if link is not None:
        link = read_link(link)
        if is_maskable(link):
            mask_secret(link)
    return api.FetchRecords(link=link, **ids)


def read_link(value: object) -> str:
    """Return the link id from any form of a link. Error texts never contain the link.

    :param value: Link id, URL of the hosted page, or a mapping with the key ``link``. The task that creates a link
        returns such a mapping.
    :raises ValidationError: if the value has another form.
    """
    if isinstance(value, Mapping):
        if "link" not in value:
            raise api.ValidationError(
                "link is a mapping without 'link': give a link id or the link task's output"
            )
        value = value["link"]
    if isinstance(value, list | tuple):
        raise api.ValidationError(
            f"link contains {len(value)} values: map the task over them with .expand(link=...)"
        )
    link = as_link_id(check_identifier("link", value))
    if link is None:
        raise api.ValidationError(
            "link is neither a link id, nor a hosted page's URL, nor the link task's output"
        )
    return link


def looks_like_faceki_id(value: object) -> bool:
    """Return whether a value has the format of FACEKI's ids, which are UUIDs."""
    return isinstance(value, str) and re.fullmatch(UUID_PATTERN, value.strip()) is not None


def _check_not_link(name: str, value: object) -> None:
    if isinstance(value, Mapping):
        place = "; pass a link task's output as link=" if "link" in value else ""
        raise api.ValidationError(f"{name} must be text, not a mapping{place}")
    if isinstance(value, str) and "://" in value:
        raise api.ValidationError(f"{name} is a URL, not an id; pass the URL of a hosted page as link=")
