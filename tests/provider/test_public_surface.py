# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The public surface: if a name or a parameter in these tests changes, DAGs of users fail.

mypy checks the types of the same names in ``tests/typing``.
"""

from __future__ import annotations

import inspect

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.hooks.faceki import FacekiHook

IMAGE = ("selfie", "*", "image_conn_id")
HOOK = {
    "get_conn": (),
    "aget_conn": (),
    "call": ("endpoint",),
    "acall": ("endpoint",),
    "fetch_records": ("*", "request_id", "link", "record_identifier", "face_id"),
    "generate_kyc_link": ("*", "workflow_id", "record_identifier", "expires_in_minutes", "redirect_url"),
    "get_workflow_rules": ("workflow_id", "*", "link"),
    "perform_kyc_verification": (
        "*",
        *("selfie", "documents", "record_identifier", "workflow_id", "image_conn_id", "lookup_timeout"),
    ),
    "match_face": IMAGE,
    "analyze_face": IMAGE,
    "check_image": ("image", *IMAGE[1:]),
    "get_pdf_report": ("request_id",),
    "workflow": ("workflow_id",),
    "workflow_rules": ("workflow_id",),
    "image": ("source", "*", "name", "conn_id"),
    "get_access_token": (),
    "test_connection": (),
    "get_connection_form_widgets": (),
    "get_ui_field_behaviour": (),
}


def parameters(function: object) -> tuple[str, ...]:
    """Return the parameter names in order, with ``*`` before the first keyword-only parameter."""
    found = list(inspect.signature(function).parameters.values())  # type: ignore[arg-type]  # any callable
    names = [each.name for each in found]
    first = next((n for n, each in enumerate(found) if each.kind is each.KEYWORD_ONLY), None)
    return tuple(names if first is None else [*names[:first], "*", *names[first:]])


@pytest.mark.parametrize("name", HOOK)
def test_methods_of_the_hook(name: str) -> None:
    assert parameters(getattr(FacekiHook("x"), name)) == HOOK[name]


def test_the_hook_has_no_other_public_methods() -> None:
    own = {name for name in vars(FacekiHook) if not name.startswith("_")}
    attributes = {"conn_name_attr", "default_conn_name", "conn_type", "hook_name", "settings"}
    assert own - attributes == set(HOOK)


def test_every_name_of_the_api_package_is_there_and_sorted_out() -> None:
    for name in api.__all__:
        assert getattr(api, name).__module__.startswith("airflow_provider_faceki.api."), name
    assert len(set(api.__all__)) == len(api.__all__)
