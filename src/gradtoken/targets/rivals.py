"""Class targets against their strongest rivals, and the other `target` options (method.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gradtoken.errors import TargetError
from gradtoken.targets.activation import Activation
from gradtoken.targets.base import Target
from gradtoken.targets.classes import Against, ClassTarget, LogProb

DEFAULTS: dict[Activation, str] = {
    "softmax": "rivals(5, 0.5)",
    "sigmoid": "logit",
    "none": "logit",
}
"""What `target="auto"` is: the choice of version 0.1.

Classes of a softmax exclude one another. Classes of sigmoids are independent: the strongest others
may be present too, and must not count against the target.
"""


def kind_for(kind: str, activation: Activation) -> str:
    """A `target` option, with "auto" replaced by the default for an activation."""
    return DEFAULTS[activation] if kind == "auto" else kind


@dataclass(frozen=True)
class Rivals:
    """The `target` option "rivals(m, w)": m strongest other logits, their mean weighted by w."""

    count: int = 5
    weight: float = 1.0


def parse_kind(kind: str) -> str | Rivals:
    """Check a `target` option: "auto", "logit", "log_prob", "others" or "rivals(m, w)".

    m and w are optional.

    Raises:
        TargetError: another option.
    """
    if kind in ("auto", "logit", "log_prob", "others"):
        return kind
    match = re.fullmatch(r"rivals(?:\((\d+)(?:,\s*(\d*\.?\d+))?\))?", str(kind))
    if match:
        rivals = Rivals(int(match[1] or 5), float(match[2] or 1))
        if rivals.count >= 1 and rivals.weight > 0:
            return rivals
    raise TargetError(
        f"unknown target kind {kind!r}; use 'auto', 'logit', 'log_prob', 'rivals(m)', "
        "'rivals(m, w)' or 'others'."
    )


def sharpened(
    target: ClassTarget,
    kind: str | Rivals,
    strongest: list[int],
    plain: list[int],
    activation: Activation,
) -> Target:
    """A class target with a `target` option applied.

    Args:
        target: a class.
        kind: "log_prob", "others" or `Rivals`.
        strongest: ids of the classes with the largest logits of the image, the largest first.
        plain: ids of the image's class targets, for "others".
        activation: the model's.
    """
    if kind == "log_prob":
        return LogProb(target.id).of(activation)
    if kind == "others":
        return Against(target.id, tuple(dict.fromkeys(i for i in plain if i != target.id)))
    assert isinstance(kind, Rivals)
    rivals = tuple(i for i in strongest if i != target.id)[: kind.count]
    return Against(target.id, rivals, kind.weight) if rivals else target
