# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Program that verifies or fetches all rows of one manifest, and prints the time and the memory that this needs.

The command is ``python -m benchmarks.batching NAME FOLDER CONCURRENCY URL CERTIFICATE PLACE``. FOLDER contains the
images. PLACE is the folder or URI that contains the manifest. The batch also writes its output files to PLACE. NAME is:

- ``verify``: Verify each row.
- ``looked_up``: Search for an older record of each row, and then verify the row.
- ``fetch``: Fetch the record of each row.
- ``pool``: Verify each row without our provider. Only this batch uses URL and CERTIFICATE. It reads the manifest from
  FOLDER, and writes no files.

The command prints JSON with the number of rows, the seconds, the CPU seconds, and the program's memory in MiB before
the first row and at the peak.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from benchmarks import clients, memory
from benchmarks.loopback import RECORDS_PATH

VERIFY, LOOKED_UP, FETCH, POOL = "verify", "looked_up", "fetch", "pool"
#: The FACEKI workflow of all verifications. It is the default workflow of our provider's Connection.
WORKFLOW = "benchmark"
MANIFEST = "people.ndjson"
COLUMN = "record_identifier"
SIDES = ("selfie", "document_1_front", "document_1_back")

_TIMEOUT = 60.0

#: Function with two arguments: the folder with the images, and the number of concurrent requests. It processes the
#: manifest and returns the number of processed rows.
Work = Callable[[Path, int], int]


def write_manifest(folder: Path, rows: int, image: bytes = b"") -> Path:
    """Write images, and a manifest with ``rows`` rows that all use these images. Return the folder."""
    folder.mkdir()
    for side in SIDES:
        (folder / f"{side}.jpg").write_bytes(b"\xff\xd8\xff\xe0" + image)
    same = {side: str(folder / f"{side}.jpg") for side in SIDES}
    with _manifest(folder).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({COLUMN: f"case-{number:06d}", **same}) + "\n" for number in range(rows))
    return folder


def _manifest(folder: Path) -> Path:
    return folder / MANIFEST


def _verify(place: str, *, assume_new: bool) -> Work:
    from airflow_provider_faceki.operators.batch import FacekiBatchVerificationOperator

    def work(folder: Path, concurrency: int) -> int:
        make = partial(
            FacekiBatchVerificationOperator, assume_new=assume_new, allowed_image_prefixes=[str(folder)]
        )
        return _execute(make, place, concurrency)

    return work


def _fetch(place: str) -> Work:
    from airflow_provider_faceki.operators.batch import FacekiBatchFetchRecordsOperator

    make = partial(FacekiBatchFetchRecordsOperator, by="request_id", column=COLUMN)
    return lambda folder, concurrency: _execute(make, place, concurrency)


def _execute(make: Callable[..., Any], place: str, concurrency: int) -> int:
    operator = make(
        task_id="benchmark",
        faceki_conn_id=clients.CONN_ID,
        manifest=f"{place}/{MANIFEST}",
        output_path=f"{place}/out",
        concurrency=concurrency,
    )
    # This object replaces Airflow's task instance, because the batch operator runs outside of Airflow here. The
    # operator reads only these attributes of a task instance.
    ti = SimpleNamespace(dag_id="benchmark", run_id="benchmark", task_id="benchmark", map_index=-1)
    decisions: dict[str, int] = operator.execute({"ti": ti})["decisions"]
    assert list(decisions) == ["ACCEPTED"]
    return decisions["ACCEPTED"]


def _pool(url: str, certificate: str) -> Work:
    """Return a function that verifies all rows of a manifest, as a user would write it without our operator.

    The function uses the library ``requests`` and a thread pool, and keeps all results in memory.
    """

    def work(folder: Path, concurrency: int) -> int:
        session = requests.Session()
        session.verify = certificate
        session.mount("https://", HTTPAdapter(pool_maxsize=concurrency))
        token = clients.fetch_token(session, base_url=url)
        with ThreadPoolExecutor(concurrency) as pool:
            found = list(pool.map(lambda row: _post(session, url, token, row), _people(folder)))
        assert set(found) == {"ACCEPTED"}
        return len(found)

    return work


def _people(folder: Path) -> Iterator[Mapping[str, str]]:
    with _manifest(folder).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _post(session: requests.Session, url: str, token: str, row: Mapping[str, str]) -> str:
    with ExitStack() as stack:
        answer = session.post(
            url + RECORDS_PATH,
            data={"workflowId": WORKFLOW, COLUMN: row[COLUMN]},
            files={side: stack.enter_context(Path(row[side]).open("rb")) for side in SIDES},
            headers={"authorization": f"Bearer {token}"},
            timeout=_TIMEOUT,
        )
    answer.raise_for_status()
    return str(answer.json()["result"]["decision"])


def _main(
    name: str, folder: Path, concurrency: int, url: str, certificate: str, place: str
) -> dict[str, float]:
    makers: dict[str, Callable[[], Work]] = {
        VERIFY: partial(_verify, place, assume_new=True),
        LOOKED_UP: partial(_verify, place, assume_new=False),
        FETCH: partial(_fetch, place),
        POOL: partial(_pool, url, certificate),
    }
    work = makers[name]()
    gc.collect()
    before = memory.resident()
    memory.forget_peak()
    began, cpu = time.perf_counter(), time.process_time()
    rows = work(folder, concurrency)
    return {
        "rows": rows,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "before": before,
        "peak": memory.peak(),
    }


if __name__ == "__main__":
    _name, _folder, _concurrency, _url, _certificate, _place = sys.argv[1:]
    print(json.dumps(_main(_name, Path(_folder), int(_concurrency), _url, _certificate, _place)))
