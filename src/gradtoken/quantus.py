"""Deprecated: use `gradtoken.adapters.quantus`."""

import warnings

from gradtoken.adapters.quantus import quantus_explain_func

warnings.warn(
    "gradtoken.quantus is deprecated; import gradtoken.adapters.quantus instead.",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["quantus_explain_func"]
