"""The errors gradtoken raises. Each message is one sentence: what is wrong, why, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 1000
"""Characters of a message; what is longer, because it quotes its cause, loses its middle."""


class GradTokenError(Exception):
    """Base of every error this package raises on purpose.

    Its message is one printable line whatever it quotes: names of files, labels and other
    libraries' errors may hold line breaks, terminal codes or megabytes.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class ImageError(GradTokenError, ValueError):
    """An image that cannot be read or used."""


class TargetError(GradTokenError, ValueError):
    """A target that the model's output does not have or that makes no sense."""


class ModelError(GradTokenError, ValueError):
    """A model, checkpoint or layout that cannot be explained."""


class MethodError(GradTokenError, ValueError):
    """An unknown method, an option it does not have, or a model it cannot honour."""


class NotSupportedError(MethodError):
    """A model or target that a method does not support.

    Code that several methods share raises it without a name; `relevance_of` adds the method's.

    Args:
        reason: the message but for its subject, "needs …".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"this method {reason}")
        self.reason = reason


FAILURES = (MethodError, ModelError, TargetError)
"""What a method, a model or a target can raise of one image, while others go on."""


class OutputError(GradTokenError, OSError):
    """A folder or file that results cannot be written to."""


class DatasetError(GradTokenError, ValueError):
    """A data set that is not there, incomplete or of another format."""


class AppError(GradTokenError, RuntimeError):
    """The web app cannot start, or cannot do what is asked of it."""


_LONGEST_NAME = 200
"""Names longer than this are no slip of the pen, and looking for near ones takes long."""


def one_line(text: str) -> str:
    """A text on one line, without control characters, its middle cut out where it is very long."""
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]} … {text[-half:]}"
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """A text with marks in the place of control characters, directions and halves of letters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def did_you_mean(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """`"; did you mean 'a', 'b'?"` with the known names nearest to `name`, or an empty string."""
    if len(name) > _LONGEST_NAME:
        return ""
    folded = {item.casefold(): item for item in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.5)
    if not near:
        return ""
    return "; did you mean " + ", ".join(repr(folded[item]) for item in near) + "?"


def first_line(error: BaseException, otherwise: str | None = None) -> str:
    """The first line of another library's error message.

    Args:
        error: of the other library.
        otherwise: returned for an empty message; None is the error's class name.
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else otherwise or type(error).__name__
