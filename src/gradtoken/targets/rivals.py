"""Class targets made into sharper ones (method.md, "Targets")."""

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
"""What `target="auto"` is, measured by benchmarks/multi_label.py (docs/multi-label.md).

Classes of a softmax exclude one another. Each sigmoid is a class by itself: the strongest others
may be present beside it, and must not count against it.
"""


def kind_for(kind: str, activation: Activation) -> str:
    """A `target` option with "auto" replaced by what it is for an activation."""
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
        TargetError: if it is none of these.
    """
    if kind in ("auto", "logit", "log_prob", "others"):
        return kind
    match = re.fullmatch(r"rivals(?:\((\d+)(?:,\s*(\d*\.?\d+))?\))?", str(kind))
    if match:
        found = Rivals(int(match[1] or 5), float(match[2] or 1))
        if found.count >= 1 and found.weight > 0:
            return found
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
    if kind == "log_prob":
        return LogProb(target.id).of(activation)
    if kind == "others":
        return Against(target.id, tuple(dict.fromkeys(i for i in plain if i != target.id)))
    assert isinstance(kind, Rivals)
    rivals = tuple(i for i in strongest if i != target.id)[: kind.count]
    return Against(target.id, rivals, kind.weight) if rivals else target
