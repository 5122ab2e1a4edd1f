"""FinerCAM's target: a class against the classes nearest to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import TargetError
from gradtoken.targets.activation import Activation, log_probabilities
from gradtoken.targets.base import Logits, Scores
from gradtoken.targets.classes import ClassTarget
from gradtoken.targets.labels import Labels
from gradtoken.targets.pending import Pending, Prompt
from gradtoken.targets.threshold import Above


@dataclass(frozen=True)
class Finer(ClassTarget):
    """y = sum_i p_i (z_c - alpha z_i) / sum_i p_i over the classes i nearest to class c.

    Nearest are the classes whose logits differ least from z_c on the image that is explained; p_i
    is the probability of class i, and takes part in the gradient.

    Args:
        id: c.
        alpha: weight of the other classes' logits; 0 leaves z_c.
        count: how many classes are compared with.
        others: the ids of the nearest classes; None until `resolve` has an image's logits.
        activation: that of the model, by which p is computed; None until then.

    Raises:
        TargetError: an alpha that is no number from 0 up, or a count that is none from 1 up.
    """

    alpha: float = 1.0
    count: int = 3
    others: tuple[int, ...] | None = None
    activation: Activation | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.alpha, (int, float)) and not isinstance(self.alpha, bool)
        if not number or not math.isfinite(self.alpha) or self.alpha < 0:
            raise TargetError(f"finer's alpha is {self.alpha!r}; it must be a number from 0 up.")
        if type(self.count) is not int or self.count < 1:
            raise TargetError(
                f"finer's count is {self.count!r}; it must be a whole number from 1 up."
            )

    def nearest(self, logits: Float[Tensor, " classes"], activation: Activation) -> Finer:
        """The target with the nearest classes of an image, unless it has its own.

        Args:
            logits: of the image, (C,).
            activation: of the model.

        Raises:
            TargetError: the model has one output, or its outputs are no probabilities.
        """
        if self.others is not None and self.activation is not None:
            return self
        if activation == "none":
            raise TargetError(
                "finer weights classes by their probabilities, and the outputs of this model are "
                "none (activation='none'); explain the output itself, or use contrast(a, b)."
            )
        if len(logits) < 2:
            raise TargetError("finer compares a class with others, and this model has one output.")
        differences = (logits - logits[self.id]).abs()
        order = differences.sort(stable=True).indices.tolist()
        others = tuple(i for i in order if i != self.id)[: self.count]
        return replace(self, others=self.others or others, activation=activation)

    def score(self, logits: Logits) -> Scores:
        if self.others is None or self.activation is None:
            raise TargetError(
                f"{self!r} does not know the nearest classes of the image; use resolve(…), or give "
                "others and activation."
            )
        others = list(self.others)
        shares = log_probabilities(logits, self.activation)[..., others].softmax(-1)
        return logits[..., self.id] - self.alpha * (shares * logits[..., others]).sum(-1)

    def terms(self) -> None:
        return None

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "finer",
            "id": self.id,
            "others": list(self.others or ()),
            "alpha": self.alpha,
        }

    def classes(self) -> tuple[int, ...]:
        return (self.id, *(self.others or ()))


@dataclass(frozen=True)
class PendingFiner(Pending):
    """`Finer` of a class that is not yet looked up; of every class chosen without one.

    `classes` is a class, or empty for the predicted classes, or "all".
    """

    alpha: float = 1.0
    count: int = 3

    @property
    def predicted(self) -> bool:
        """Whether it stands for the predicted classes."""
        return not self.classes

    @property
    def of_all(self) -> bool:
        """Whether it stands for all classes of the model."""
        return self.classes == ("all",)

    def of_class(self, index: int) -> Finer:
        """The target of a class by id."""
        return Finer(index, self.alpha, self.count)

    def resolve(self, labels: Labels) -> Finer:
        if self.predicted or self.of_all:
            raise TargetError(
                f"{self!r} stands for several classes, so it is given alone: targets={self!r}."
            )
        return self.of_class(labels.find(self.classes[0]))

    def __repr__(self) -> str:
        default = "" if (self.alpha, self.count) == (1.0, 3) else f"{self.alpha:g}, {self.count}"
        return f"finer({', '.join(filter(None, [*map(repr, self.classes), default]))})"


def finer(c: int | str | Above | None = None, alpha: float = 1.0, count: int = 3) -> Any:
    """A class against the classes nearest to it: FinerCAM's target, for every method.

    Explains sum_i p_i (z_c - alpha z_i) / sum_i p_i over the `count` classes i whose logits differ
    least from z_c on the image, p_i being the probability of class i by the model's activation
    (Zhang et al., Finer-CAM, CVPR 2025).

    Args:
        c: a class id or name; None for the `top_k` predicted classes; "all" classes; `above(p)`.
        alpha: weight of the nearest classes' logits, from 0 up.
        count: how many classes are compared with, from 1 up.

    Raises:
        TargetError: another c, alpha or count.

    Example:
        >>> gradtoken.explain(model, image, gradtoken.finer("tabby"), method="grad-cam")
        >>> gradtoken.explain(model, image, gradtoken.finer(), top_k=3)
    """
    checked = Finer(0, alpha, count)
    if isinstance(c, Above):
        return replace(c, finer=(checked.alpha, checked.count))
    if isinstance(c, (Prompt, Pending, list, tuple)):
        raise TargetError(
            f"finer({c!r}): it takes one class by id or name, or none for the predicted classes; "
            "prompts and contrasts say themselves what they are compared with."
        )
    return PendingFiner(Finer, () if c is None else (c,), alpha, count)


def each_finer(targets: Any, options: tuple[float, int]) -> Any:
    """Chosen targets, each class set against its nearest classes.

    Args:
        targets: as `explain` takes them: None, "all", `above(p)`, or a list of ids and names.
        options: alpha and count.

    Raises:
        TargetError: prompts.
    """
    if isinstance(targets, list):
        return [finer(target, *options) for target in targets]
    return finer(targets, *options)


def parse_finer(text: str) -> tuple[float, int]:
    """`1` or `0.6,5` as FinerCAM's alpha and count.

    Raises:
        TargetError: if it is neither.
    """
    alpha, comma, count = text.partition(",")
    try:
        options = (float(alpha), int(count) if comma else 3)
        Finer(0, *options)
    except ValueError:
        raise TargetError(
            f"--finer {text!r}: give the weight of the nearest classes, as in --finer 1, or weight "
            "and number of classes, as in --finer 0.6,5."
        ) from None
    return options
