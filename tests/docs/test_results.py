"""The tables of results say what the measured files say."""

from __future__ import annotations

from benchmarks import results_page


def test_results_page_prints_the_measured_files() -> None:
    text = results_page.PAGE.read_text(encoding="utf-8")
    assert results_page.page(text) == text
    named = {match[1] for match in results_page.TABLE.finditer(text)}
    assert named == {folder.name for folder in results_page.RESULTS.iterdir()}
