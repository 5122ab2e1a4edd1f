"""GradToken: decouple the class token by its class-aware gradient, then relate it to the patches.

After Cheng, Liang, Lu, Cheung, "GradToken: Decoupling tokens with class-aware gradient for visual
explanation of Transformer network", Neural Networks 181:106837, 2025. The equations are this
project's derivation from that paper's abstract (docs/paper.md); its full text was not at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import Method
from gradtoken.errors import MethodError
from gradtoken.spread import spread_by_attention, spread_by_tokens
from gradtoken.tap import full_precision
from gradtoken.targets import Targets, parse_kind
from gradtoken.trace import Readout, Trace

PRESETS: dict[str, dict[str, Any]] = {
    "faithful": {"beta": 1.0, "spread": None},
    "sharp": {"rectify": "head"},
    "contrastive": {"target": "rivals(5)", "beta": 0.7},
}
"""Named settings: first order and complete; supporting evidence only; classes set apart."""

_COLDEST = 1e-3

_CHOICES: dict[str, tuple[Any, ...]] = {
    "gradient": ("stream", "full"),
    "rectify": (None, "head", "layer", "final"),
    "spread": (None, "token", "attention"),
    "channel_weight": (None, "content", "product"),
}


@dataclass(frozen=True, kw_only=True)
class GradToken(Method):
    """R_i = sum over blocks and heads of a_i^beta * phi(<gamma, v_i>), then spread over patches.

    a is the class token's attention to token i, v_i the token's value vector, and gamma the
    gradient of the target's score by what the head writes into the class token.

    Args:
        gradient: "stream" (along the class token alone, about 1/N of a backward pass) or "full"
            (backpropagation through the whole model).
        layers: "all", "half" (the upper one), "last", the number of last blocks, or a list of
            block indices (0-based, negative from the end).
        beta: exponent of the attention weight; 1 is first order, smaller damps attention sinks.
        rectify: keep positive relations only: per "head", per "layer" (block), or once in the
            "final" sum; None keeps the sign.
        spread: one step along the similarity of patches: "token" (cosine of the tokens entering
            the second-last block), "attention" (their own attention) or None.
        temperature: softmax temperature of the token spread.
        channel_weight: None, "content" (gamma * |o|) or "product" (gamma * o), o being what the
            head writes.
        target: what class targets mean: "logit", "log_prob", "rivals(m)" or "others".

    `make_method` and `explain` also take `preset=`: "faithful" (beta 1, no spread: complete to
    first order), "sharp" (rectify per head) or "contrastive" (rivals(5), beta 0.7). Options that
    are spelt out go before a preset's.
    """

    name: ClassVar[str] = "gradtoken"
    summary: ClassVar[str] = "class token decoupled by class-aware gradient, related to patches"
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    source: ClassVar[str] = "Cheng et al., Neural Networks 181:106837, 2025 (our derivation)"

    gradient: Literal["stream", "full"] = "stream"
    layers: str | int | Sequence[int] = "all"
    beta: float = 0.5
    rectify: Literal["head", "layer", "final"] | None = None
    spread: Literal["token", "attention"] | None = "token"
    temperature: float = 0.1
    channel_weight: Literal["content", "product"] | None = None
    target: str = "logit"

    def __post_init__(self) -> None:
        for option, choices in _CHOICES.items():
            value = getattr(self, option)
            if not (value is None or isinstance(value, str)) or value not in choices:
                raise MethodError(
                    f"gradtoken's {option} is {value!r}; it can be {', '.join(map(repr, choices))}."
                )
        if not isinstance(self.layers, (str, int)):
            object.__setattr__(self, "layers", _listed(self.layers))
        if not (_is_number(self.beta) and self.beta >= 0):
            raise MethodError(f"gradtoken's beta is {self.beta!r}; it must be a number from 0 up.")
        if not (_is_number(self.temperature) and self.temperature >= _COLDEST):
            raise MethodError(
                f"gradtoken's temperature is {self.temperature!r}; it must be a number from "
                f"{_COLDEST} up."
            )
        parse_kind(self.target)

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        prefix = trace.model.layout.prefix
        relevance = self.all_tokens(trace, targets)[..., prefix:]
        if self.spread == "token":
            return spread_by_tokens(relevance, trace.affinity_tokens, self.temperature)
        if self.spread == "attention":
            return spread_by_attention(relevance, trace.calls, prefix)
        return relevance

    def all_tokens(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets tokens"]:
        """Relevance of every token, prefix included, before spreading.

        With beta 1 and neither rectify nor channel_weight, each block's share sums over tokens to
        sum_h <gamma, o> exactly (completeness).
        """
        blocks = select_layers(self.layers, trace.depth)
        readouts = trace.readouts(
            targets.sharpen(self.target, trace.logits), gradient=self.gradient
        )
        relevance = self._relate(readouts[blocks[0]])
        for block in blocks[1:]:
            relevance += self._relate(readouts[block])
        return relevance.clamp_min(0) if self.rectify == "final" else relevance

    def _relate(self, block: Readout) -> Float[Tensor, "batch targets tokens"]:
        with full_precision(block.gradient):
            gamma = block.gradient
            if self.channel_weight == "content":
                gamma = gamma * block.output.abs()[:, :, None]
            elif self.channel_weight == "product":
                gamma = gamma * block.output[:, :, None]
            relation = gamma @ block.value.transpose(-2, -1)
            if self.rectify == "head":
                relation = relation.clamp_min(0)
            weight = block.attention if self.beta == 1 else block.attention**self.beta
            relevance = torch.einsum("bhn,bhkn->bkn", weight, relation)
            return relevance.clamp_min(0) if self.rectify == "layer" else relevance


def _listed(layers: object) -> object:
    """An array or range of block indices as a plain list; anything else as it is."""
    try:
        return [int(i) if isinstance(i, (int, np.integer)) else i for i in layers]  # type: ignore[attr-defined]
    except TypeError:
        return layers


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def select_layers(layers: str | int | Sequence[int], depth: int) -> list[int]:
    """The block indices an option `layers` means in a model of `depth` blocks.

    Raises:
        MethodError: if it names none, or a block the model does not have.
    """
    if layers == "all":
        return list(range(depth))
    if layers == "half":
        return list(range(depth // 2, depth))
    if layers == "last":
        return [depth - 1]
    if isinstance(layers, int) and not isinstance(layers, bool) and 1 <= layers <= depth:
        return list(range(depth - layers, depth))
    if isinstance(layers, Sequence) and not isinstance(layers, str):
        fits = [isinstance(i, int) and -depth <= i < depth for i in layers]
        if fits and all(fits):
            return sorted({i % depth for i in layers})
    raise MethodError(
        f"layers={layers!r} does not fit a model of {depth} blocks; use 'all', 'half', 'last', "
        f"1 to {depth} for so many last blocks, or a list of block indices."
    )
