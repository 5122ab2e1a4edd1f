"""Checking by running a model on noise: how its class is read, and which methods work on it."""

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
from gradtoken.targets.prompts import PromptBatch
from gradtoken.targets.similarity import Similarity
from gradtoken.trace.record import record
from gradtoken.trace.trace import Trace

WORKS = "works"
_SAME = 1e-6
"""Relative difference below which two maps are equal up to rounding."""


@dataclass(frozen=True)
class Check:
    """The result of `check`.

    Args:
        spec: the model's name.
        blocks: number of transformer blocks that are followed (0: only the last stage's average
            is).
        attention_calls: number of attention calls recorded in the blocks and after them.
        grid: rows and columns of spatial tokens.
        prefix: number of tokens other than these.
        readout: how the class is read.
        verified: the facts that were verified, each with a number and its bound.
        activation: how logits become probabilities; "by prompt" for a model that compares images
            with text.
        methods: for each method, "works" or the reason why it does not.
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
        """Whether GradToken itself works."""
        return self.methods["gradtoken"] == WORKS

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def check(model: Model, names: Sequence[str] | None = None) -> Check:
    """Verify how a model is read, and run methods on noise for two of its outputs.

    Args:
        model: the model to check.
        names: names of methods, including gradtoken; None for all, but for methods of text prompts
            where the model reads no text.

    Raises:
        ModelError: if the model cannot be followed at all.
        MethodError: if a method is unknown.
    """
    reads_text = model.prompts is not None
    usual = [name for name, kind in methods().items() if reads_text or not kind.of_prompts]
    kinds = {name: make_method(name).__class__ for name in names or usual}
    trace = record(model, sample_input(model))
    outputs = [_first, _last] if trace.logits.shape[-1] > 1 else [_first]
    plain = Targets([[OutputTarget(output) for output in outputs]])
    prompts = _prompts(trace) if reads_text else plain
    return Check(
        spec=model.spec,
        blocks=trace.depth,
        attention_calls=len(trace.calls),
        grid=trace.grid,
        prefix=model.layout.prefix,
        readout=" + ".join(backbone.model.anatomy.readout for backbone in trace.backbones),
        verified=tuple(fact for backbone in trace.backbones for fact in backbone.reading.facts),
        activation=model.probability,
        methods={
            name: _outcome(kind, trace, prompts if kind.of_prompts else plain)
            for name, kind in kinds.items()
        },
    )


def _prompts(trace: Trace) -> Targets:
    """Two prompts of random embeddings, as targets of a model that compares images with text."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn((2, trace.logits.shape[-1]), generator=generator, dtype=torch.float32)
    batch = PromptBatch(torch.nn.functional.normalize(drawn, dim=-1), scale=1.0)
    return Targets([[Similarity(f"prompt {index}", index, batch) for index in range(2)]])


def _first(output: torch.Tensor) -> torch.Tensor:
    return output[0]


def _last(output: torch.Tensor) -> torch.Tensor:
    return output[-1]


def _outcome(kind: type[Method], trace: Trace, targets: Targets) -> str:
    """What a method says of a model: "works", or the reason why it does not."""
    try:
        method = make_method(kind, **kind.trial)
        with torch.no_grad():
            relevance = relevance_of(method, trace, targets)
        _check_relevance(method.name, method.class_aware, relevance)
    except GradTokenError as error:
        return str(error)
    return WORKS


def _check_relevance(name: str, class_aware: bool, relevance: torch.Tensor) -> None:
    """Raise an error if a map is blank, not finite, or the same for two outputs."""
    if not bool(torch.isfinite(relevance).all()):
        raise MethodError(f"{name} gave NaN or infinite relevance.")
    if not bool(relevance.abs().amax(dim=-1).all()):
        raise MethodError(f"{name} gave a blank map.")
    first, last = relevance[0, 0], relevance[0, -1]
    if relevance.shape[1] == 1:
        return
    if class_aware and torch.allclose(first, last, rtol=0, atol=_SAME * float(first.abs().max())):
        raise MethodError(f"{name} gave the same map for two outputs.")
