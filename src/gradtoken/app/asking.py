"""Asking the model: what it predicts, and why, with each block's part on the side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution import Method, make_method, methods
from gradtoken.attribution.gradtoken import GradToken
from gradtoken.errors import GradTokenError, MethodError
from gradtoken.explaining import explain
from gradtoken.explanation.explanation import Explanation
from gradtoken.images.source import Source
from gradtoken.models import Model
from gradtoken.precision import wide
from gradtoken.targets import Targets, resolve, text
from gradtoken.targets.activation import Activation
from gradtoken.targets.activation import probabilities as class_probabilities
from gradtoken.trace.trace import Trace

METHODS = (
    "gradtoken",
    "gae",
    "legrad",
    "grad-cam",
    "cdam",
    "transformer-attribution",
    "raw-attention",
    "rollout",
)
"""Methods to compare: per class, and the last two the same for every class."""


@dataclass(frozen=True, eq=False)
class Asked:
    """An explanation by GradToken with each block's part of it.

    Args:
        explanation: of all blocks.
        parts: (K, P, h, w): of each block and last of what is read after them, or of that alone.
    """

    explanation: Explanation
    parts: Float[Tensor, "targets parts h w"]

    @property
    def blocks(self) -> int:
        """How many blocks there are to choose from; 0 where the readout passes through none."""
        return self.parts.shape[1] - 1

    def of_blocks(self, first: int, last: int) -> Explanation:
        """The explanation by the blocks `first` to `last` (from 1) and what is read after them.

        It is what the method gives with `layers=[…]`, without a forward.
        """
        if self.blocks == 0:
            return self.explanation
        first, last = (min(max(1, one), self.blocks) for one in sorted((first, last)))
        if (first, last) == (1, self.blocks):
            return self.explanation
        chosen = list(range(first - 1, last))
        tokens = self.parts[:, [*chosen, -1]].sum(dim=1)[None]
        method = self.explanation.about["method"]
        options = {**method["options"], "layers": chosen}
        about = {**self.explanation.about, "method": {**method, "options": options}}
        return replace(self.explanation, tokens=tokens, about=about)


class _WithParts(Method):
    """GradToken as `explain` calls it, which keeps the parts of the call."""

    name = "gradtoken"

    def __init__(self, method: GradToken) -> None:
        self.method = method
        self.parts: Tensor | None = None

    def options_for(self, activation: Activation) -> dict[str, Any]:
        return self.method.options_for(activation)

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        self.parts = self.method.by_block(trace, targets)
        return self.parts.sum(dim=2)


def ask(model: Model, source: Source, wanted: Sequence[Any]) -> Asked:
    """Explain one picture by GradToken: one forward, all targets, each block's part."""
    method = make_method("gradtoken")
    assert isinstance(method, GradToken)
    keeping = _WithParts(method)
    found = _explain(model, source, wanted, keeping)
    assert keeping.parts is not None
    parts = keeping.parts[0].detach().float().cpu().unflatten(-1, found.tokens.shape[-2:])
    return Asked(found, parts)


def compare(
    model: Model, source: Source, wanted: Sequence[Any], names: Sequence[str]
) -> dict[str, Explanation | str]:
    """The same targets explained by several methods; a text where one cannot serve the model."""
    known = methods()
    for name in names:
        if name not in METHODS or name not in known:
            raise MethodError(
                f"{name!r} is not among the methods to compare: {', '.join(METHODS)}."
            )
    found: dict[str, Explanation | str] = {}
    for name in names:
        try:
            found[name] = _explain(model, source, wanted, make_method(name))
        except MethodError as error:
            found[name] = str(error)
    return found


def _explain(model: Model, source: Source, wanted: Sequence[Any], method: Method) -> Explanation:
    found = explain(model, source.image, list(wanted), method=method)
    return replace(
        found,
        tokens=found.tokens.cpu(),
        scores=found.scores.cpu(),
        probabilities=found.probabilities.cpu(),
        sources=[source],
    )


def probabilities(model: Model, source: Source, prompts: tuple[str, ...] = ()) -> tuple[float, ...]:
    """The probability of every class, or of every prompt, of one picture.

    NaN where the outputs are no probabilities.
    """
    pixels = model.preprocess(source.image)[None]
    logits = wide(model(pixels))
    if model.prompts is None:
        found = class_probabilities(logits, model.activation)[0]
    else:
        if not prompts:
            return ()
        targets = resolve(list(text(*prompts)), logits, model.labels, prompts=model.read_text)
        found = targets.probabilities(logits, model.activation)[0]
    return tuple(found.tolist())


def count_blocks(model: Model, source: Source) -> int:
    """How many blocks GradToken's relevance is made of, found by trying.

    Raises:
        GradTokenError: if the model cannot be explained; better now than on the first picture.
    """
    wanted: list[Any] = [0] if model.prompts is None else list(text("a picture"))
    try:
        return ask(model, source, wanted).blocks
    except GradTokenError as error:
        raise type(error)(f"{model.spec} cannot be served: {error}") from None
