"""Deprecated: use `gradtoken.explanation.sheet`."""

import warnings

from gradtoken.explanation.sheet import SheetRow, notes_on, rows_of, sheet

warnings.warn(
    "gradtoken.sheet is deprecated; import gradtoken.explanation.sheet instead.",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["SheetRow", "notes_on", "rows_of", "sheet"]
