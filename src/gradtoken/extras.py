"""Libraries that only batches need, found or named."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gradtoken.errors import GradTokenError


def needs(name: str) -> Any:
    """A module of the extra `batch`, imported when it is needed.

    Raises:
        GradTokenError: if it is not installed; names the extra.
    """
    try:
        return import_module(name)
    except ImportError as error:
        if name.partition(".")[0] != (error.name or "").partition(".")[0]:
            raise GradTokenError(f"{name} needs {error.name}; install it.") from None
        raise GradTokenError(
            f'batches need {name.partition(".")[0]}; pip install "gradtoken[batch]".'
        ) from None
