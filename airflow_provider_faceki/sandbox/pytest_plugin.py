# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The pytest fixtures `faceki_sandbox` and `faceki_run_dag`, for tests of your own DAGs.

If the provider is installed, every run of pytest imports this module. Airflow and the web server are imported only when
a test requests a fixture, so that this module does not slow down the other runs of pytest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import count
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import pytest

# When the clock module is imported, it reads the system time and stores a reference to the original `asyncio.sleep`.
# Both must happen before a test freezes the time. Therefore the import is at the top of this file.
from airflow_provider_faceki.sandbox.backend import clock as _clock  # noqa: F401

if TYPE_CHECKING:
    from os import PathLike

    from airflow_provider_faceki.sandbox.dag_runner import AirflowHome, DagResult
    from airflow_provider_faceki.sandbox.server import FacekiSandbox


_client_numbers = count(1)


@pytest.fixture(scope="session")
def _faceki_sandbox_server() -> Iterator[FacekiSandbox]:
    from airflow_provider_faceki.sandbox.server import FacekiSandbox

    with FacekiSandbox() as sandbox:
        yield sandbox


@pytest.fixture
def faceki_sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FacekiSandbox:
    """Provide an empty sandbox on loopback, and set `AIRFLOW_CONN_FACEKI_DEFAULT` to a Connection to it.

    All tests share one sandbox. Before each test, the sandbox is reset. Only its clock is not reset.

    The optional parameter of the fixture is a mapping of the sandbox's settings, or the name of a dialect. A dialect is
    a simulated difference from FACEKI's documentation. Several names of dialects are separated by commas. Example:
    `@pytest.mark.parametrize("faceki_sandbox", ["path-ids"], indirect=True)`. If a dialect is set, the Connection also
    contains the values that the provider needs for this dialect.
    """
    from airflow_provider_faceki.sandbox.__main__ import missing_packages
    from airflow_provider_faceki.sandbox.control import ControlClient

    if problem := missing_packages():
        pytest.fail(f"faceki_sandbox: {problem}", pytrace=False)
    # The server must start after the check of the packages. Therefore its fixture is requested here and is not a
    # parameter of this fixture.
    sandbox: FacekiSandbox = request.getfixturevalue("_faceki_sandbox_server")
    # A late request of an earlier test must not be counted in this test. A request that has begun before the reset
    # below is not counted. The call of `get` makes sure that all earlier requests have begun: it opens a new
    # connection, and the server accepts connections in the order of their arrival.
    ControlClient(sandbox.url).get("counters")
    sandbox.reset()
    # The provider stores tokens separately for each client id. Each test has its own client id, so that no test uses a
    # token that an earlier test stored.
    sandbox.settings.client_id = f"{sandbox.client_id}-{next(_client_numbers)}"
    settings = getattr(request, "param", {})
    sandbox.settings.update({"dialect": settings} if isinstance(settings, str) else settings)
    monkeypatch.setenv(
        "AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(sandbox.connection(**sandbox.dialect.connection))
    )
    return sandbox


class RunDag(Protocol):
    """The type of the fixture `faceki_run_dag`."""

    def __call__(
        self,
        source: str | PathLike[str] | ModuleType | Any,
        dag_id: str | None = None,
        *,
        conf: Mapping[str, object] | None = None,
    ) -> DagResult: ...


@pytest.fixture(scope="session")
def _faceki_airflow_home(tmp_path_factory: pytest.TempPathFactory) -> AirflowHome:
    from airflow_provider_faceki.sandbox.dag_runner import AirflowHome

    home = AirflowHome(tmp_path_factory.mktemp("airflow-home"))
    home.migrate()
    return home


@pytest.fixture
def faceki_run_dag(faceki_sandbox: FacekiSandbox, _faceki_airflow_home: AirflowHome) -> Iterator[RunDag]:
    """Provide a function that runs a DAG against the sandbox and returns the result of the DAG run.

    Example: `faceki_run_dag(source, conf={...})`. `source` is a DAG, a function with the decorator `@dag`, a path or a
    module. Airflow uses a temporary home directory with its own database. The database is created once for all tests.
    """
    with _faceki_airflow_home.used():
        yield _faceki_airflow_home.run
