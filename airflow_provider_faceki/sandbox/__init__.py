# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A local server that simulates the FACEKI service, for the development and the tests of DAGs.

The server is called the sandbox. By default it listens on loopback. It needs no FACEKI account and no credit. Its
persons are fictitious.

The sandbox is built from FACEKI's public documentation and the source code of official SDKs. The real service possibly
differs from these sources. A successful test with the sandbox is therefore no proof that a DAG works with FACEKI.

The import of this package needs neither starlette nor uvicorn. The modules of the package are imported only when one of
their names, for example `FacekiSandbox`, is used for the first time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox.backend.clock import Clock as Clock
    from airflow_provider_faceki.sandbox.control import ControlClient as ControlClient
    from airflow_provider_faceki.sandbox.control import ControlError as ControlError
    from airflow_provider_faceki.sandbox.faults import Fault as Fault
    from airflow_provider_faceki.sandbox.server import FacekiSandbox as FacekiSandbox
    from airflow_provider_faceki.sandbox.server import SandboxProcess as SandboxProcess
    from airflow_provider_faceki.sandbox.settings import Settings as Settings

_MODULES = {
    "Clock": "backend.clock",
    "ControlClient": "control",
    "ControlError": "control",
    "FacekiSandbox": "server",
    "Fault": "faults",
    "SandboxProcess": "server",
    "Settings": "settings",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
