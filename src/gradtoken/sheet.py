"""Deprecated: use `gradtoken.explanation.comparison`."""

import warnings

from gradtoken.explanation.comparison import ComparisonRow as SheetRow
from gradtoken.explanation.comparison import comparison_figure as sheet
from gradtoken.explanation.comparison import comparison_rows as rows_of
from gradtoken.explanation.comparison import evidence_notes as notes_on

warnings.warn(
    "gradtoken.sheet is deprecated; import gradtoken.explanation.comparison instead.",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["SheetRow", "notes_on", "rows_of", "sheet"]
