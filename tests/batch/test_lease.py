# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""If several tries work on one output_path, exactly one continues, and its batch can be tried again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.airflow_store import AirflowObjectStore
from airflow_provider_faceki.batch.lease import Lease


def lease(folder: Path, batch_id: str) -> Lease:
    return Lease(AirflowObjectStore(), str(folder), batch_id)


def markers(folder: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["batch"] for path in folder.iterdir())


@pytest.mark.parametrize("later", ["ffffffff", "00000000"])
def test_one_of_two_simultaneous_batches_gets_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    write = storage.write_bytes

    def at_the_same_moment(uri: str, content: bytes, conn_id: str | None = None) -> str:
        # Each of the two tries writes its own lease before it sees the other lease.
        write(f"{tmp_path}/try-000001-{later}.json", b'{"batch": "tuesday"}')
        return write(uri, content, conn_id)

    monkeypatch.setattr(storage, "write_bytes", at_the_same_moment)
    monday = lease(tmp_path, "monday")
    if later == "ffffffff":
        with pytest.raises(ValidationError, match="another try has begun"):
            monday.acquire()
    else:
        monday.acquire()
    monkeypatch.undo()
    winner, loser = ("tuesday", "monday") if later == "ffffffff" else ("monday", "tuesday")
    lease(tmp_path, winner).acquire()
    with pytest.raises(ValidationError, match="contains another batch"):
        lease(tmp_path, loser).acquire()


@pytest.mark.parametrize("content", [b"", b'{"bat', b"[]", b'{"batch": 1}', b"\xff"])
def test_an_unreadable_lease_file_does_not_block_its_own_batch(tmp_path: Path, content: bytes) -> None:
    lease(tmp_path, "monday").acquire()
    (tmp_path / "try-000002-00000000.json").write_bytes(content)
    with pytest.raises(ValidationError, match="contains another batch, 'monday'"):
        lease(tmp_path, "tuesday").acquire()
    lease(tmp_path, "monday").acquire()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_lease_file_deleted_during_reading_is_tolerated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "try-000001-00000000.json").write_text("{}")
    opened: Callable[..., object] = storage.open_binary

    def gone(uri: str, conn_id: str | None = None) -> object:
        Path(uri).unlink()
        return opened(uri, conn_id)

    monkeypatch.setattr(storage, "open_binary", gone)
    lease(tmp_path, "monday").acquire()
    assert markers(tmp_path) == ["monday"]
