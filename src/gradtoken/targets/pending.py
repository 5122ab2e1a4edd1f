"""Targets as a user writes them, before a model's labels or text encoder are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradtoken.errors import TargetError
from gradtoken.targets.base import Target
from gradtoken.targets.classes import Contrast, LogProb
from gradtoken.targets.labels import Labels


@dataclass(frozen=True)
class Pending:
    """A target of class names or ids, not yet looked up in a model's labels."""

    kind: Callable[..., Target]
    classes: tuple[Any, ...]

    def resolve(self, labels: Labels) -> Target:
        """The target, with the ids of its classes."""
        return self.kind(*(labels.find(item) for item in self.classes))

    def __repr__(self) -> str:
        name = "contrast" if self.kind is Contrast else "log_prob"
        return f"{name}({', '.join(map(repr, self.classes))})"


def contrast(a: int | str | Prompt | list[Prompt], b: int | str | Prompt | list[Prompt]) -> Pending:
    """Why class `a` and not class `b`: explains z_a - z_b. Ids or names.

    Two prompts, as in `contrast(*text("a cat", "a dog"))` or
    `contrast(text("a cat"), text("a dog"))`, set their similarities against each other.
    """
    return Pending(Contrast, (_single(a), _single(b)))


def log_prob(c: int | str) -> Pending:
    """The log-probability of class `c`, by the model's activation.

    Args:
        c: id or name.
    """
    return Pending(LogProb, (c,))


def _single(side: Any) -> Any:
    """A side of a contrast; of a list of one prompt, that prompt.

    Raises:
        TargetError: several prompts.
    """
    if not isinstance(side, list) or not all(isinstance(item, Prompt) for item in side):
        return side
    if len(side) != 1:
        raise TargetError(
            f"each side of contrast(a, b) is one prompt, and it got {len(side)} in a list; use "
            'contrast(*text("a cat", "a dog")).'
        )
    return side[0]


@dataclass(frozen=True)
class Prompt:
    """A prompt among others, not yet encoded by a model."""

    prompts: tuple[str, ...]
    index: int

    def __repr__(self) -> str:
        return f"text({self.prompts[self.index]!r})"


def text(*prompts: str) -> list[Prompt]:
    """Prompts whose similarity with an image is explained, for models such as CLIP and SigLIP.

    Returns a list of targets, one for each prompt. CLIP's probabilities are shares among them.

    Raises:
        TargetError: no prompt, or one that is no text.
    """
    if not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise TargetError('text() needs prompts, as in text("a photo of a cat", "a dog").')
    return [Prompt(prompts, index) for index in range(len(prompts))]
