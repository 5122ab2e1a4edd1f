"""The figure that compares methods."""

from __future__ import annotations

import importlib
import sys

import pytest

from gradtoken import Explanation, Style
from gradtoken.explanation.comparison import comparison_figure, comparison_rows


def test_comparison_figure_notes_missing_evidence(mixed: Explanation) -> None:
    rows = comparison_rows({"gradtoken": mixed, "other": "refused"}, Style())
    assert [row.notes for row in rows] == [{}, *[{"gradtoken": "no positive evidence"}] * 3]
    axes = comparison_figure(rows, "caption").axes
    assert axes[1].get_xlabel() == ""
    assert axes[4].get_xlabel() == "no positive evidence"


def test_sheet_is_deprecated_name_of_comparison() -> None:
    sys.modules.pop("gradtoken.sheet", None)
    with pytest.warns(DeprecationWarning, match=r"gradtoken\.explanation\.comparison"):
        sheet = importlib.import_module("gradtoken.sheet")
    assert (sheet.sheet, sheet.rows_of) == (comparison_figure, comparison_rows)
