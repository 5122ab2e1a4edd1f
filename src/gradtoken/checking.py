"""How a model is read, and which methods work on it: found out by running it on noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gradtoken.attribution import Method, make_method, methods
from gradtoken.attribution.base import relevance_of
from gradtoken.errors import GradTokenError, MethodError
from gradtoken.models.model import Model
from gradtoken.models.reading.observe import sample_input
from gradtoken.models.verification import Fact
from gradtoken.targets import OutputTarget, Targets
from gradtoken.trace.record import record
from gradtoken.trace.trace import Trace

WORKS = "works"
_SAME = 1e-6
"""Maps that differ by less, relative to the largest relevance, are the same but for rounding."""


@dataclass(frozen=True)
class Check:
    """What `check` found.

    Args:
        spec: the model's name.
        blocks: transformer blocks followed (0: only the last stage's average is).
        attention_calls: attention calls seen in them and after them.
        grid: rows and columns of spatial tokens.
        prefix: tokens other than these.
        readout: how the class is read.
        verified: what was verified of this, each with a number and the bound that it keeps.
        activation: how logits become probabilities; "by prompt" for a model that compares images
            with text.
        methods: for every method, "works" or why not.
    """

    spec: str
    blocks: int
    attention_calls: int
    grid: tuple[int, int]
    prefix: int
    readout: str
    verified: tuple[Fact, ...]
    activation: str
    methods: dict[str, str]

    @property
    def works(self) -> bool:
        """Whether GradToken itself does."""
        return self.methods["gradtoken"] == WORKS

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def check(model: Model, names: Sequence[str] | None = None) -> Check:
    """Verify how a model is read, and run methods on noise for two of its outputs.

    Args:
        model: to be tried on.
        names: of the methods, gradtoken among them; None for every one.

    Raises:
        ModelError: if the model cannot be followed at all.
        MethodError: if a method is unknown.
    """
    kinds = {name: make_method(name).__class__ for name in names or methods()}
    trace = record(model, sample_input(model))
    outputs = [_first, _last] if trace.logits.shape[-1] > 1 else [_first]
    targets = Targets([[OutputTarget(output) for output in outputs]])
    return Check(
        spec=model.spec,
        blocks=trace.depth,
        attention_calls=len(trace.calls),
        grid=trace.grid,
        prefix=model.layout.prefix,
        readout=" + ".join(one.model.anatomy.readout for one in trace.backbones),
        verified=tuple(fact for one in trace.backbones for fact in one.reading.facts),
        activation=model.probability,
        methods={name: _try(kind, trace, targets) for name, kind in kinds.items()},
    )


def _first(output: torch.Tensor) -> torch.Tensor:
    return output[0]


def _last(output: torch.Tensor) -> torch.Tensor:
    return output[-1]


def _try(kind: type[Method], trace: Trace, targets: Targets) -> str:
    try:
        method = make_method(kind, **kind.trial)
        with torch.no_grad():
            relevance = relevance_of(method, trace, targets)
        _judge(method.name, method.class_aware, relevance)
    except GradTokenError as error:
        return str(error)
    return WORKS


def _judge(name: str, class_aware: bool, relevance: torch.Tensor) -> None:
    """A map that is blank, not finite, or the same for two classes is no explanation."""
    if not bool(torch.isfinite(relevance).all()):
        raise MethodError(f"{name} gave NaN or infinite relevance.")
    if not bool(relevance.abs().amax(dim=-1).all()):
        raise MethodError(f"{name} gave a blank map.")
    one, other = relevance[0, 0], relevance[0, -1]
    if relevance.shape[1] == 1:
        return
    if class_aware and torch.allclose(one, other, rtol=0, atol=_SAME * float(one.abs().max())):
        raise MethodError(f"{name} gave the same map for two outputs.")
