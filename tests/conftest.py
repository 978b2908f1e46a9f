# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Isolated Airflow home for the tests. It is created before any module imports Airflow."""

from __future__ import annotations

import atexit
import gc
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from airflow_provider_faceki.api import charge_limit
from airflow_provider_faceki.api.transport import adapter, http_transport
from demo.browser import find_chromium
from tests.object_store import ObjectStore
from tests.object_store import _object_store_server as _object_store_server
from tests.object_store import object_store as object_store
from tests.sandbox_delays import held_delays as held_delays

if TYPE_CHECKING:
    from tests.airflow.shared import SharedAirflow

ROOT = Path(__file__).resolve().parent.parent
#: The modules of Airflow 3 and of Airflow 2 that mask secrets.
MASKERS = ("airflow.sdk._shared.secrets_masker.secrets_masker", "airflow.utils.log.secrets_masker")
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))

# The quick profile always tries the same examples, so that a run fails because of the code and not because of luck.
settings.register_profile("quick", max_examples=60, deadline=None, database=None, derandomize=True)
# More examples, and other ones in each run: pytest --hypothesis-profile thorough
settings.register_profile("thorough", max_examples=2000, deadline=None, database=None, print_blob=True)
settings.load_profile("quick")


def _isolate_environment() -> None:
    """Set the environment. A fixture would be too late, because Airflow reads the environment at import time."""
    for name in list(os.environ):
        # A developer's own Airflow, connections or proxies must not influence the test results.
        if name.startswith(("AIRFLOW_", "_AIRFLOW_")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Turn coverage off in the processes that the tests start. Coverage still measures the test process. With
        # coverage, the start of each process of Airflow would need 3 s of CPU time instead of 2 s.
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    os.environ.update(
        AIRFLOW_HOME=str(AIRFLOW_HOME),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "example_dags"),
        AIRFLOW__CORE__TEST_CONNECTION="Enabled",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        AIRFLOW__LOGGING__LOGGING_LEVEL="INFO",
        NO_COLOR="1",
    )


_isolate_environment()


def pytest_unconfigure() -> None:
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude the collected tests from garbage collection. Otherwise each run would search half a gigabyte."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# Python collects garbage several times before it exits. Exclude all objects from these runs, because the exit of the
# process frees the memory anyway.
atexit.register(gc.freeze)


#: Tiers of tests. If a test uses one of the fixtures, it belongs to the tier. If several tiers match, the first one
#: wins.
TIER_FIXTURES = {
    "airflow": {"airflow_db", "_faceki_airflow_home", "shared_airflow"},
    "process": {"_object_store_server"},
    "integration": {"faceki_sandbox", "sandbox"},
}


#: Key of the exit stack that stops the shared Airflow.
RUNNING = pytest.StashKey[ExitStack]()

#: Fixtures that take long to create. All files that use the same fixture run in one process, so that the fixture is
#: created once. The pattern finds these files by their text, because pytest-xdist distributes the tests before it knows
#: their fixtures.
ONE_PROCESS_FIXTURES = {
    "shared_airflow": re.compile(r"\bshared_airflow\b"),
    "airflow_db": re.compile(r"\b(airflow_db|airflow: Path|listening: Path|served: Served)\b"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of its tier, and let long files begin first.

    The tier is the first one in :data:`TIER_FIXTURES` that matches a marker or a fixture of the test, otherwise `unit`.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        tiers = (
            tier for tier, names in TIER_FIXTURES.items() if item.get_closest_marker(tier) or names & fixtures
        )
        item.add_marker(next(tiers, "unit"))
        for fixture in fixtures.intersection(ONE_PROCESS_FIXTURES):
            if fixture not in _one_process_fixtures(item.path):
                pattern = ONE_PROCESS_FIXTURES[fixture].pattern
                raise pytest.UsageError(
                    f"{item.nodeid} uses {fixture}, so the text of its file must match {pattern}"
                )
    # Large groups of tests and long files come first. If one of them began last, its process would still work while all
    # other processes have nothing to do.
    items.sort(key=_order)


def _order(item: pytest.Item) -> tuple[bool, bool, bool]:
    fixtures = _one_process_fixtures(item.path)
    return "shared_airflow" not in fixtures, not fixtures, not item.get_closest_marker("long")


@cache
def _one_process_fixtures(path: Path) -> tuple[str, ...]:
    text = path.read_text(encoding="utf-8")
    return tuple(fixture for fixture, pattern in ONE_PROCESS_FIXTURES.items() if pattern.search(text))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Run all files with the same fixture of :data:`ONE_PROCESS_FIXTURES` in one process, with ``--dist loadfile``."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    scheduling: Any = LoadFileScheduling(config, log)
    file_of = scheduling._split_scope

    def process_of(nodeid: str) -> str:
        file: str = file_of(nodeid)
        return next(iter(_one_process_fixtures(config.rootpath / file)), file)

    scheduling._split_scope = process_of
    return scheduling


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let no unit test start a process.

    The usual functions are replaced. An audit hook would see every way to start a process, but it disturbs coverage:
    Python 3.11 runs the hook while it installs the trace function of one thread. If another thread starts at the same
    time, Python refuses the trace function of that thread.
    """
    if not item.get_closest_marker("unit"):
        return (yield)

    def forbidden(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"{item.nodeid} starts a process, so it needs the marker `process`")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fork", "posix_spawn", "posix_spawnp", "system"):
            patch.setattr(os, name, forbidden)
        patch.setattr(subprocess.Popen, "__init__", forbidden)
        return (yield)


@pytest.fixture(scope="session")
def _tls_contexts() -> dict[tuple[str, str | None], ssl.SSLContext]:
    return {}


@pytest.fixture(autouse=True)
def _own_masked_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin without masked secrets. Its own secrets are forgotten after the test.

    Otherwise Airflow would keep all secrets until the process ends. Airflow 2.11 also masks secrets of one character,
    so almost any text of a later test could be masked. In addition, Airflow compiles the pattern of all secrets again
    for each new secret, which would become slower with each test.
    """
    for name in MASKERS:
        if name in sys.modules:
            masker = sys.modules[name]._secrets_masker()
            monkeypatch.setattr(masker, "patterns", set())
            monkeypatch.setattr(masker, "replacer", None)


@pytest.fixture(autouse=True)
def _own_charged_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin without charged calls. The provider counts them per process, not per test."""
    monkeypatch.setattr(charge_limit, "_unknown_outcomes", Counter())
    monkeypatch.setattr(charge_limit, "_made", Counter())


@pytest.fixture(autouse=True)
def _shared_certificates(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    _tls_contexts: dict[tuple[str, str | None], ssl.SSLContext],
) -> None:
    """Load the CA bundle once for all integration tests. Otherwise the client of each test would load it again."""
    if not request.node.get_closest_marker("integration"):
        return

    def shared_context(verify: bool | str) -> ssl.SSLContext:
        bundle = adapter.ca_bundle(verify)
        if bundle not in _tls_contexts:
            _tls_contexts[bundle] = adapter.tls_context(verify)
        return _tls_contexts[bundle]

    monkeypatch.setattr(http_transport, "tls_context", shared_context)


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """Return the session's AIRFLOW_HOME."""
    return AIRFLOW_HOME


@pytest.fixture(scope="session")
def airflow_db(airflow_home: Path) -> Path:
    """Return the path of a migrated metadata database in AIRFLOW_HOME. It is created when a test first needs it."""
    # A separate process is used, because the migration changes the logging setup. A failure shows the whole output.
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return airflow_home / "airflow.db"


@pytest.fixture(scope="session")
def shared_airflow(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    _object_store_server: ObjectStore,
) -> Iterator[SharedAirflow]:
    """A complete Airflow. All tests share it, except the tests that stop a service of Airflow."""
    from tests.airflow.shared import shared

    with ExitStack() as running:
        request.config.stash[RUNNING] = running
        yield running.enter_context(shared(tmp_path_factory.mktemp("shared_airflow"), _object_store_server))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Stop the shared Airflow after the last test that uses it, because idle Airflow services need CPU time."""
    try:
        return (yield)
    finally:
        still_used = nextitem is not None and "shared_airflow" in _one_process_fixtures(nextitem.path)
        if not still_used and (running := item.config.stash.get(RUNNING, None)):
            running.close()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium. If there is none, skip the test with a reason."""
    if path := find_chromium():
        return path
    pytest.skip("no Chromium: set CHROMIUM, or run as root on Debian, where `make test` installs it")
