# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The numbers and plots of docs/performance.md are those of the committed results."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from benchmarks import page, peers, results
from benchmarks.run import BENCHMARKS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_a_place_for_each_benchmark() -> None:
    found = re.findall(r"<!-- results of (\w+) -->", page.PAGE.read_text(encoding="utf-8"))
    assert sorted(found) == sorted(BENCHMARKS)


def test_the_numbers_on_the_page_are_those_of_the_committed_results() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.fill(text, results.read(page.RESULTS)), "run `make plots`"


@pytest.mark.parametrize("plot", sorted(DOCS.glob("plots/*.svg")), ids=lambda path: path.stem)
def test_each_plot_is_drawn_from_the_committed_results(plot: Path) -> None:
    digest = hashlib.sha256(page.RESULTS.read_bytes()).hexdigest()
    assert f"<!-- results {digest} -->" in plot.read_text(encoding="utf-8"), "run `make plots`"


def test_the_results_name_no_machine() -> None:
    text = page.RESULTS.read_text(encoding="utf-8")
    assert set(re.findall(r'^  "(\w+)":', text, re.MULTILINE)) == {
        "date", "cores", "python", "airflow", "load", "rows"
    }  # fmt: skip


def test_results_without_a_place_on_the_page_are_refused() -> None:
    with pytest.raises(ValueError, match="no place for the results of calls"):
        page.fill("", {"calls": results.measured_now([], 0.0)})


def test_a_place_without_results_says_so() -> None:
    empty = "<!-- results of calls -->\n<!-- end of results -->"
    assert "no results yet" in page.fill(empty, {})


def test_peers_that_are_not_installed_are_not_measured() -> None:
    # The peers have a directory of their own, in which the tests do not search for packages.
    assert not peers.available()
