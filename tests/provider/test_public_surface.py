# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The public surface: if a name or a parameter in these tests changes, DAGs of users fail.

mypy checks the types of the same names in ``tests/typing``.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_faceki import api
from airflow_provider_faceki.api.client import AsyncFacekiClient, FacekiClient
from airflow_provider_faceki.get_provider_info import get_provider_info
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import ControlClient, FacekiSandbox, SandboxProcess
from airflow_provider_faceki.triggers.faceki import FacekiKycDecisionTrigger

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

KEYS = ("link", "request_id", "record_identifier")
OUTPUT = ("output_path", "output_conn_id")
CONNECTION = ("faceki_conn_id",)
IMAGES = ("image_conn_id", "resize_to", "allowed_image_prefixes")
BATCH = (
    *("output_path", "manifest_format", "concurrency", "max_error_rate", "manifest_conn_id"),
    *("output_conn_id", *CONNECTION),
)
#: Parameters of the operators and the sensor, with those of the provider's base classes and without Airflow's.
OPERATORS = {
    "FacekiOperator": ("*", *CONNECTION),
    "FacekiGenerateKycLinkOperator": (
        *("*", "workflow_id", "record_identifier", "expires_in_minutes", "redirect_url"),
        *CONNECTION,
    ),
    "FacekiFetchRecordsOperator": (
        *("*", "request_id", "link", "record_identifier", "face_id", *OUTPUT),
        *("fail_on_decline", "fail_if_missing", "skip_if_missing", *CONNECTION),
    ),
    "FacekiApiOperator": (
        *("*", "path", "method", "query", "json", "data", "files", "files_conn_id", "authenticated"),
        *("idempotent", *OUTPUT, "max_xcom_bytes", *CONNECTION),
    ),
    "FacekiKycVerificationOperator": (
        *("*", "selfie", "documents", "workflow_id", "record_identifier", "image_conn_id", *OUTPUT),
        *("check_rules", "resize_to", "allowed_image_prefixes", "resubmit", "resubmit_after"),
        *("lookup_timeout", "fail_on_decline", "wait_for_review", "review_timeout", "deferrable"),
        *CONNECTION,
    ),
    "FacekiFaceMatchOperator": ("*", "selfie", *OUTPUT, *IMAGES, *CONNECTION),
    "FacekiAnalyzeFaceOperator": ("*", "selfie", *IMAGES, *CONNECTION),
    "FacekiCheckImageOperator": ("*", "image", *IMAGES, *CONNECTION),
    "FacekiPdfReportOperator": ("*", "request_id", *OUTPUT, *CONNECTION),
    "FacekiDecisionBranchOperator": ("*", "summary", "accepted", "declined", "otherwise", "review"),
    "FacekiBatchVerificationOperator": (
        *("*", "manifest", "batch_id", "columns", "workflow_id", "include_records", "check_rules"),
        *("resize_to", "resubmit", "assume_new", "max_verifications", "resubmit_after", "lookup_timeout"),
        *("image_conn_id", "allowed_image_prefixes", "allowed_image_conn_ids", *BATCH),
    ),
    "FacekiBatchFetchRecordsOperator": (
        *("*", "identifiers", "manifest", "by", "column", "output_format", "personal_data"),
        *("partition_by_date", *BATCH),
    ),
    "FacekiKycDecisionSensor": (
        *("*", *KEYS, "wait_for_review", "fail_on_decline", "max_failures", "exponential_backoff"),
        *("max_wait", "deferrable", *CONNECTION),
    ),
}
TRIGGER = (
    *("*", "faceki_conn_id", "deadline", *KEYS, "wait_for_review", "poke_interval"),
    *("exponential_backoff", "max_wait", "max_failures", "failed_polls"),
)
CLIENT = {
    "call": ("endpoint",),
    "get_access_token": (),
    "fetch_access_token": (),
    "as_async": (),
}
CLIENT_SETTINGS = (
    *("client_id", "client_secret", "auth_flow", "service", "transport", "retry", "token_directory"),
    *("token_backend", "secret_masker", "warn", "observer", "charge_limit"),
)
ASYNC_CLIENT = {"call": ("endpoint",), "get_access_token": (), "as_sync": ()}
#: The members that ``docs/sandbox.md`` names.
SANDBOX = {
    "start": (),
    "stop": (),
    "reset": (),
    "connection": ("**extra",),
    "create_link": ("record_identifier", "*", "workflow_id", "minutes", "redirect_url"),
    "decide": ("key", "decision", "by"),
    "end_link": ("link", "how"),
    "add_record": ("record_identifier", "decision", "*", "link", "code", "selfie", "fields"),
    "add_fault": ("kind", "**options"),
    "clear_faults": (),
    "revoke_tokens": (),
    "send_fake_webhook": ("request_id", "status", "full_name"),
    "polls": ("**by",),
}
SANDBOX_SETTINGS = ("*", "settings", "host", "port", "tls", "clock", "expose", "log")
SANDBOX_PROCESS = {"start": (), "stop": (), "connection": ("**extra",)}
CONTROL_CLIENT = {"get": ("name", "**query"), "post": ("name", "**document"), "delete": ("name",)}
METHODS = [
    pytest.param(made, name, expected, id=f"{made.__name__}.{name}")
    for made, table in (
        (FacekiClient, CLIENT | {"__init__": CLIENT_SETTINGS}),
        (AsyncFacekiClient, ASYNC_CLIENT | {"__init__": ("client",)}),
        (FacekiSandbox, SANDBOX | {"__init__": SANDBOX_SETTINGS}),
        (SandboxProcess, SANDBOX_PROCESS | {"__init__": ("*arguments", "client_id", "client_secret")}),
        (ControlClient, CONTROL_CLIENT | {"__init__": ("url", "cafile")}),
        (FacekiKycDecisionTrigger, {"__init__": TRIGGER}),
    )
    for name, expected in table.items()
]


def parameters(function: object) -> tuple[str, ...]:
    """Return the parameter names in order, with ``*`` before the first keyword-only parameter.

    Names of parameters that take any number of arguments begin with ``*`` or ``**``.
    """
    found = list(inspect.signature(function).parameters.values())  # type: ignore[arg-type]  # any callable
    stars: dict[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [stars.get(each.kind, "") + each.name for each in found]
    first = next((n for n, each in enumerate(found) if each.kind is each.KEYWORD_ONLY), None)
    if first is None or any(each.kind is each.VAR_POSITIONAL for each in found):
        return tuple(names)
    return (*names[:first], "*", *names[first:])


def provider_parameters(operator: type) -> tuple[str, ...]:
    """Return the parameters of an operator and of its base classes in the provider, each name once."""
    found: dict[str, None] = {}
    for each in operator.__mro__:
        if each.__module__.startswith("airflow_provider_faceki.") and "__init__" in vars(each):
            _, *names = parameters(vars(each)["__init__"])
            found |= dict.fromkeys(name for name in names if name != "**kwargs")
    return tuple(found)


def operators() -> dict[str, type]:
    """Return the public classes of operators and sensors in the modules of the provider's metadata."""
    info: dict[str, Any] = get_provider_info()
    groups = [*info["operators"], *info["sensors"]]
    modules = [import_module(name) for group in groups for name in group["python-modules"]]
    return {
        name: each
        for module in modules
        for name, each in vars(module).items()
        if isinstance(each, type)
        and issubclass(each, BaseOperator)
        and each.__module__ == module.__name__
        and not name.startswith("_")
    }


@pytest.mark.parametrize("name", HOOK)
def test_methods_of_the_hook(name: str) -> None:
    assert parameters(getattr(FacekiHook("x"), name)) == HOOK[name]


def test_the_hook_has_no_other_public_methods() -> None:
    own = {name for name in vars(FacekiHook) if not name.startswith("_")}
    attributes = {"conn_name_attr", "default_conn_name", "conn_type", "hook_name", "settings"}
    assert own - attributes == set(HOOK)


def test_every_api_name_exists_once_in_the_package() -> None:
    for name in api.__all__:
        assert getattr(api, name).__module__.startswith("airflow_provider_faceki.api."), name
    assert len(set(api.__all__)) == len(api.__all__)


def test_every_operator_and_sensor_is_in_the_table() -> None:
    assert set(operators()) == set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_parameters_of_the_operators_and_the_sensor(name: str) -> None:
    assert provider_parameters(operators()[name]) == OPERATORS[name]


@pytest.mark.parametrize(("made", "name", "expected"), METHODS)
def test_methods_of_the_clients_the_sandbox_and_the_trigger(
    made: type, name: str, expected: tuple[str, ...]
) -> None:
    function = getattr(made, name)
    assert parameters(function) == ("self", *expected)


@pytest.mark.parametrize(
    ("made", "table"),
    [
        pytest.param(FacekiClient, CLIENT, id="FacekiClient"),
        pytest.param(AsyncFacekiClient, ASYNC_CLIENT, id="AsyncFacekiClient"),
        pytest.param(ControlClient, CONTROL_CLIENT, id="ControlClient"),
    ],
)
def test_the_clients_have_no_other_public_methods(made: type, table: dict[str, tuple[str, ...]]) -> None:
    fields = set(getattr(made, "__dataclass_fields__", ()))
    assert {name for name in vars(made) if not name.startswith("_")} - fields == set(table)
