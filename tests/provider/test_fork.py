# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Forked processes: a child can use the hook, whichever locks the threads of its parent hold at the fork."""

from __future__ import annotations

import importlib
import json
import logging
import os
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import airflow_provider_faceki
from airflow_provider_faceki import storage
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.billing.image_files import write
from tests.forks import exit_code, fork
from tests.object_store import ObjectStore

pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("no_log"),
]

#: Number of times that four children are forked.
ROUNDS = 3
_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Semaphore)
#: Locks that the search has to find.
KNOWN = {
    "api.charge_limit._lock",
    "api.tokens.memory._shared_mutex",
    "api.transport.http_transport._transports_lock",
    "hooks.workflow_rules._locks[0]",
    "resize._budget._changed",
    "resize._strict_decoding._lock",
}


def _modules() -> Iterator[tuple[str, ModuleType]]:
    """Yield the modules of the provider, except those of the sandbox, with their short names."""
    prefix = f"{airflow_provider_faceki.__name__}."
    for found in pkgutil.walk_packages(airflow_provider_faceki.__path__, prefix):
        short = found.name.removeprefix(prefix)
        if not short.startswith(("sandbox", "example_dags")):
            yield short, importlib.import_module(found.name)


def _shared_locks() -> dict[str, Any]:
    """Return the locks in global variables of the modules, in dicts in them, and in attributes of such objects."""
    found: dict[str, Any] = {}
    for short, module in _modules():
        for name, value in vars(module).items():
            values = [("", value)]
            if isinstance(value, dict) and not name.startswith("__"):
                values = [(f"[{number}]", item) for number, item in enumerate(value.values())]
            for suffix, item in values:
                _collect(f"{short}.{name}{suffix}", item, found)
    return found


def _collect(name: str, value: object, found: dict[str, Any]) -> None:
    if isinstance(value, _LOCKS):
        found[name] = value
    elif not isinstance(value, type) and type(value).__module__.startswith(airflow_provider_faceki.__name__):
        attributes = getattr(value, "__dict__", {}).items()
        found.update({f"{name}.{key}": each for key, each in attributes if isinstance(each, _LOCKS)})


@pytest.fixture
def no_log() -> Iterator[None]:
    """Log nothing, because Airflow logs each look-up of a Connection.

    If a thread held the lock of the log's stream at the fork, the lock would stay held in the child forever.
    """
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def use(faceki_sandbox: FacekiSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Function that uses every shared object of the process: token, connections, rules, limit of charged calls."""
    faceki_sandbox.settings.credit = None
    connection = faceki_sandbox.connection(max_charged_calls=1_000_000)
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
    selfie = write(tmp_path, "selfie.jpg")

    def work() -> bool:
        hook = FacekiHook()
        hook.workflow_rules(hook.workflow(None))
        hook.analyze_face(selfie)
        return hook.fetch_records(record_identifier="nobody") == ()

    return work


class _Searched:
    """Finder that finds no module, and records the name of each module that Python searches."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.names.append(name)


def test_no_module_is_searched_after_the_first_use(
    use: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python holds a lock while it searches a module. A child that is forked at this time waits for the lock forever.

    Python searches a module that does not exist again at each import. common-compat tries to import such modules.
    """
    assert use()
    searched = _Searched()
    monkeypatch.setattr(sys, "meta_path", [searched, *sys.meta_path])
    assert use()
    assert searched.names == []


def test_a_child_forked_while_every_lock_is_held(use: Callable[[], bool]) -> None:
    assert use()
    held = _shared_locks()
    assert set(held) >= KNOWN
    for lock in held.values():
        lock.acquire()
    try:
        child = fork(lambda: _all_are_free() and use())
    finally:
        for lock in held.values():
            lock.release()
    assert exit_code(child) == 0


def _all_are_free() -> bool:
    """Return whether no lock of the process is held. The names of held locks are printed."""
    held = [name for name, lock in _shared_locks().items() if not lock.acquire(blocking=False)]
    print("held:", held, file=sys.stderr)  # noqa: T201 - the child process has no other output
    if held:
        return False
    for lock in _shared_locks().values():
        lock.release()
    return True


def test_a_child_makes_its_own_connection_to_a_storage(object_store: ObjectStore) -> None:
    uri = object_store.put("greeting", b"hello")

    def read() -> bool:
        with storage.open_binary(uri) as file:
            return file.read() == b"hello"

    assert read()
    assert exit_code(fork(read)) == 0


def test_a_child_forked_while_a_thread_looks_up_the_connection(
    use: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()
    parent, original = os.getpid(), FacekiHook.get_connection

    def slow(conn_id: str) -> Any:
        if os.getpid() == parent:
            begun.set()
            ended.wait(120)
        return original(conn_id)

    monkeypatch.setattr(FacekiHook, "get_connection", staticmethod(slow))
    thread = threading.Thread(target=use)
    thread.start()
    try:
        assert begun.wait(120)
        child = fork(use)
        assert exit_code(child) == 0
    finally:
        ended.set()
        thread.join(120)


def test_children_forked_while_threads_use_everything(use: Callable[[], bool]) -> None:
    assert use()
    over = threading.Event()

    def keep_using() -> None:
        while not over.is_set():
            assert use()

    threads = [threading.Thread(target=keep_using) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        outcomes = []
        for _ in range(ROUNDS):
            children = [fork(use) for _ in range(4)]
            outcomes += [exit_code(child) for child in children]
    finally:
        over.set()
        for thread in threads:
            thread.join(120)
    assert outcomes == [0] * len(outcomes)
