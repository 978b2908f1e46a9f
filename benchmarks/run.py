# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run all benchmarks, or only the benchmarks with the given names: ``python benchmarks/run.py [NAME...]``.

The command prints one table and writes the results as JSON. If a target is missed or a benchmark fails, the exit
status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.frame import Row
    from benchmarks.results import Results

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".work" / "benchmarks"
#: The file with the results of the last run of each benchmark. If a benchmark fails, its old results are removed.
RESULTS = WORK / "results.json"

#: The time limit in seconds, by the name of the benchmark. Each benchmark is a module with a function ``measure``.
BENCHMARKS = {
    "imports": 600,
    "calls": 600,
    "metrics": 300,
    "first_call": 600,
    "tokens": 300,
    "uploads": 300,
    "batch": 1800,
    "batch_on_s3": 3600,
    "waits": 900,
    "webhooks": 600,
}
#: Time in seconds after SIGTERM in which a benchmark must end the processes that it has started, such as an Airflow.
GRACE_SECONDS = 60.0


def main() -> int:
    """Run the requested benchmarks and return the exit status."""
    parser = argparse.ArgumentParser(description="Measure the provider beside its peers and baselines.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; default: all"
    )
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    # When this file runs as a script, ``sys.path[0]`` is the directory of this file. It is replaced by the parent
    # directory, so that Python finds the package ``benchmarks``.
    sys.path[0] = str(ROOT)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        return _run(names)
    except KeyboardInterrupt:
        return 130


def _run(names: list[str]) -> int:
    from benchmarks import peers
    from benchmarks.results import measured_now
    from benchmarks.table import table

    WORK.mkdir(parents=True, exist_ok=True)
    place = peers.install(WORK)
    failed: list[str] = []
    taken: Results = {}
    for name in names:
        began, load = time.monotonic(), os.getloadavg()[0]
        found = _measure(name, place)
        if found is None:
            failed.append(name)
        else:
            taken[name] = measured_now(found, load)
        # The results are written after each benchmark, so that an interrupted run does not lose them.
        _write_results(taken, failed)
        said = "failed" if found is None else "done"
        print(f"{name}: {said} in {time.monotonic() - began:.0f} s", flush=True)
    rows = [row for measured in taken.values() for row in measured.rows]
    print(f"\n{table(rows)}\n\nRatios: the median of the rounds' own, in brackets their middle half.")
    print(f"As JSON, with earlier runs of other benchmarks: {RESULTS}")
    missed = [row.measure for row in rows if not row.ok]
    for measure in missed:
        print(f"missed: {measure}")
    for name in failed:
        print(f"not taken: {name}; its log: {WORK / name}.log")
    return 1 if missed or failed else 0


def _write_results(taken: Results, failed: list[str]) -> None:
    """Add the new results to the file of results, and remove the results of benchmarks that have failed."""
    from benchmarks import results

    kept = {name: found for name, found in results.read(RESULTS).items() if name not in failed}
    together = kept | taken
    results.write(RESULTS, {name: together[name] for name in BENCHMARKS if name in together})


def _measure(name: str, place: Path | None) -> list[Row] | None:
    from benchmarks.frame import Row

    log = WORK / f"{name}.log"
    with tempfile.TemporaryDirectory(prefix="faceki-benchmark-") as directory:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.one", name, directory],
                cwd=ROOT,
                env=_environment(Path(directory), place),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            with _ended(process), contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(BENCHMARKS[name])
        rows = Path(directory) / "rows.json"
        if process.returncode or not rows.exists():
            print(log.read_text(encoding="utf-8", errors="replace")[-2000:], file=sys.stderr)
            return None
        return [Row.from_dict(row) for row in json.loads(rows.read_text(encoding="utf-8"))]


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End ``process`` at the end of the ``with`` block.

    The process first gets SIGTERM, so that it can end its child processes. If it still runs after ``GRACE_SECONDS``,
    its process group gets SIGKILL.
    """
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(directory: Path, place: Path | None) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW_"))
    }
    # Three variables are removed. With PYTHONDONTWRITEBYTECODE, Python would write no bytecode, and the import
    # benchmark would also measure the compiler. REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE contain paths of CA files. The
    # library ``requests`` would use these files instead of the certificate of the benchmark's server.
    for name in ("PYTHONDONTWRITEBYTECODE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        kept.pop(name, None)
    kept["AIRFLOW_HOME"] = str(directory / "airflow")
    kept["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    kept["PYTHONPATH"] = os.pathsep.join(str(path) for path in (ROOT, place) if path)
    kept["NO_PROXY"] = kept["no_proxy"] = "127.0.0.1,localhost"
    return kept


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
