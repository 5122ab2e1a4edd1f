"""Deprecated: use `gradtoken.adapters.captum`."""

import warnings

from gradtoken.adapters.captum import Attribution

warnings.warn(
    "gradtoken.captum is deprecated; import gradtoken.adapters.captum instead.",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["Attribution"]
