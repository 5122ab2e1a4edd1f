"""Deprecated: use `gradtoken.images.fills`."""

import warnings

from gradtoken.images.fills import Fill, filled

warnings.warn(
    "gradtoken.metrics.fills is deprecated; import gradtoken.images.fills instead.",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["Fill", "filled"]
