"""The errors gradtoken raises. Each message is one sentence: what is wrong, why, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GradTokenError(Exception):
    """Base of every error this package raises on purpose."""


class ImageError(GradTokenError, ValueError):
    """A picture that cannot be read or used."""


class TargetError(GradTokenError, ValueError):
    """A target that the model's output does not have or that makes no sense."""


class ModelError(GradTokenError, ValueError):
    """A model, checkpoint or layout that cannot be explained."""


class MethodError(GradTokenError, ValueError):
    """An unknown method, an option it does not have, or a model it cannot honour."""


class OutputError(GradTokenError, OSError):
    """A folder or file that results cannot be written to."""


class DatasetError(GradTokenError, ValueError):
    """A data set that is not there, incomplete or of another format."""


class AppError(GradTokenError, RuntimeError):
    """The web app cannot start, or cannot do what is asked of it."""


def did_you_mean(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """`"; did you mean 'a', 'b'?"` with the known names nearest to `name`, or an empty string."""
    folded = {item.casefold(): item for item in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.5)
    if not near:
        return ""
    return "; did you mean " + ", ".join(repr(folded[item]) for item in near) + "?"
