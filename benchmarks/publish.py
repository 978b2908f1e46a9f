# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The command `make plots`: copy the last results of `make bench` into the documentation.

The new results replace the old results of the same benchmarks in docs/benchmarks.json. The tables of
docs/performance.md and the plots are generated from that file.
"""

from __future__ import annotations

from benchmarks import page, plots, results, run


def main() -> None:
    """Write the file of results, the tables and the plots of the documentation."""
    together = results.read(page.RESULTS) | results.read(run.RESULTS)
    results.write(page.RESULTS, {name: together[name] for name in run.BENCHMARKS if name in together})
    found = results.read(page.RESULTS)
    page.PAGE.write_text(page.fill(page.PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    plots.draw_all(found)


if __name__ == "__main__":
    main()
