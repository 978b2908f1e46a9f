# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Does of those that begin on one output_path exactly one go on, and can it be tried again?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.turn import Turn


def markers(folder: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["batch"] for path in folder.iterdir())


@pytest.mark.parametrize("later", ["ffffffff", "00000000"])
def test_of_two_batches_at_the_same_moment_one_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    write = storage.write_json

    def at_the_same_moment(uri: str, document: object, conn_id: str | None = None) -> str:
        # Whoever else began has seen as little of this one as this one of it.
        write(f"{tmp_path}/try-000001-{later}.json", {"batch": "tuesday"})
        return write(uri, document, conn_id)

    monkeypatch.setattr(storage, "write_json", at_the_same_moment)
    monday = Turn(str(tmp_path), "monday")
    if later == "ffffffff":
        with pytest.raises(ValidationError, match="another try has begun"):
            monday.take()
    else:
        monday.take()
    monkeypatch.undo()
    winner, loser = ("tuesday", "monday") if later == "ffffffff" else ("monday", "tuesday")
    Turn(str(tmp_path), winner).take()
    with pytest.raises(ValidationError, match="holds another batch"):
        Turn(str(tmp_path), loser).take()


@pytest.mark.parametrize("content", [b"", b'{"bat', b"[]", b'{"batch": 1}', b"\xff"])
def test_a_marker_that_cannot_be_read_keeps_nobody_out(tmp_path: Path, content: bytes) -> None:
    Turn(str(tmp_path), "monday").take()
    (tmp_path / "try-000002-00000000.json").write_bytes(content)
    with pytest.raises(ValidationError, match="holds another batch, 'monday'"):
        Turn(str(tmp_path), "tuesday").take()
    Turn(str(tmp_path), "monday").take()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_marker_that_goes_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "try-000001-00000000.json").write_text("{}")
    opened: Callable[..., object] = storage.open_binary

    def gone(uri: str, conn_id: str | None = None) -> object:
        Path(uri).unlink()
        return opened(uri, conn_id)

    monkeypatch.setattr(storage, "open_binary", gone)
    Turn(str(tmp_path), "monday").take()
    assert markers(tmp_path) == ["monday"]
