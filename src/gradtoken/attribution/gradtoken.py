"""GradToken: decouple the readout by its class-aware gradient, then relate it to the patches.

After Cheng, Liang, Lu, Cheung, "GradToken: Decoupling tokens with class-aware gradient for visual
explanation of Transformer network", Neural Networks 181:106837, 2025. The equations are this
project's derivation from that paper's abstract (docs/paper.md); its full text was not at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import Method
from gradtoken.attribution.layers import Layers, as_index_list, select_layers
from gradtoken.attribution.options import check_number, is_number
from gradtoken.attribution.spread import affinity_tokens, spread_by_attention, spread_by_tokens
from gradtoken.errors import MethodError, NotSupportedError
from gradtoken.images.patch_grid import pick
from gradtoken.images.smoothing import spread_by_nearness
from gradtoken.precision import full_precision
from gradtoken.targets import Targets, kind_for, parse_kind
from gradtoken.targets.activation import Activation
from gradtoken.trace.gradients import readouts, targets_per_chunk
from gradtoken.trace.readout import Readout, Readouts
from gradtoken.trace.trace import Trace

PRESETS: dict[str, dict[str, Any]] = {
    "faithful": {"beta": 1.0, "depth": 0.0, "spread": None, "target": "logit"},
    "sharp": {"rectify": "head", "target": "logit"},
    "contrastive": {"target": "rivals(5)", "beta": 0.7},
}
"""Named settings: first order and complete; supporting evidence only; classes set apart."""

_COLDEST = 1e-3
_TAIL = -1
"""The index, among a target's parts, of the steps after the last block."""

_CHOICES: dict[str, tuple[Any, ...]] = {
    "gradient": ("auto", "stream", "full"),
    "rectify": (None, "head", "layer", "final"),
    "spread": (None, "near", "token", "attention"),
    "channel_weight": (None, "content", "product"),
}


@dataclass(frozen=True, kw_only=True)
class GradToken(Method):
    """R_i = sum over steps and heads of w a_i^beta phi(<gamma, v_i>), then spread over patches.

    a is the readout's attention to token i, v_i the token's value vector, and gamma the gradient
    of the target's score by what the head writes into the readout. The steps are those that make
    the readout: the blocks for a class token, the pool's attention for an attention pool, class
    attention, and an average of tokens as a step with equal weights. A readout of several tokens
    (class and distillation token, averaged tokens) sums over them.

    Args:
        gradient: "stream" (along the readout alone, about 1/N of a backward pass), "full"
            (backpropagation through the whole model) or "auto": "full" where the head averages
            tokens, whose way through the blocks is the whole model, and "stream" elsewhere.
        layers: "all", "half" (the upper one), "last", the number of last blocks, or a list of
            block indices (0-based, negative from the end).
        beta: exponent of the attention weight; 1 is first order, smaller damps attention sinks.
        depth: block l of L (from 1) has the weight w = (l / L)^depth; 0 weighs all alike. What is
            read late is decoupled best. Steps after the last block have weight 1.
        rectify: keep positive relations only: per "head", per "layer" (block), or once in the
            "final" sum; None keeps the sign.
        spread: one step from patch to patch: "near" (to neighbours), "token" (to patches that are
            alike, by the cosine of the tokens entering the second-last block, and near),
            "attention" (along their own attention) or None.
        temperature: softmax temperature of the token spread.
        reach: how far the near and the token spread go, as a standard deviation relative to the
            grid's mean side; with None the token spread goes anywhere.
        channel_weight: None, "content" (gamma * |o|) or "product" (gamma * o), o being what the
            head writes.
        target: what class targets mean: "logit", "log_prob", "rivals(m, w)" (minus w times the mean
            of the m strongest other logits), "others" or "auto": "rivals(5, 0.5)" where the
            classes share a softmax and "logit" elsewhere, since of sigmoids the strongest others
            may be present too. Contrasts, functions of the output and text prompts stay as they
            are.

    `make_method` and `explain` also take `preset=`: "faithful" (the logit, beta 1,
    equal weights of blocks, no spread: complete to first order), "sharp" (the logit, rectified per
    head) or "contrastive" (rivals(5), beta 0.7). Explicit options override those of a preset.
    """

    name: ClassVar[str] = "gradtoken"
    summary: ClassVar[str] = "class token decoupled by class-aware gradient, related to patches"
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    source: ClassVar[str] = "Cheng et al., Neural Networks 181:106837, 2025 (our derivation)"

    gradient: Literal["auto", "stream", "full"] = "auto"
    layers: Layers = "all"
    beta: float = 0.5
    depth: float = 2.0
    rectify: Literal["head", "layer", "final"] | None = None
    spread: Literal["near", "token", "attention"] | None = "near"
    temperature: float = 0.1
    reach: float | None = 0.05
    channel_weight: Literal["content", "product"] | None = None
    target: str = "auto"

    def __post_init__(self) -> None:
        for option, choices in _CHOICES.items():
            value = getattr(self, option)
            if not (value is None or isinstance(value, str)) or value not in choices:
                raise MethodError(
                    f"gradtoken's {option} is {value!r}; it can be {', '.join(map(repr, choices))}."
                )
        object.__setattr__(self, "layers", as_index_list(self.layers))
        check_number(self, "beta")
        check_number(self, "depth")
        if self.reach is not None and not (is_number(self.reach) and self.reach >= _COLDEST):
            raise MethodError(
                f"gradtoken's reach is {self.reach!r}; it must be None or a number from "
                f"{_COLDEST} up."
            )
        check_number(self, "temperature", _COLDEST)
        if self.spread == "near" and self.reach is None:
            raise MethodError('gradtoken with spread="near" needs a reach, such as 0.05.')
        parse_kind(self.target)

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        return self._spread(self.all_tokens(trace, targets)[..., -trace.spatial :], trace)

    def options_for(self, activation: Activation) -> dict[str, Any]:
        return {**self.options(), "target": kind_for(self.target, activation)}

    def first_block(self, depth: int) -> int:
        if not depth or self.gradient == "full" or self.spread == "attention":
            return 0
        return select_layers(self.layers, depth)[0]

    def needs_queries(self) -> bool:
        return self.spread == "attention"

    def sets_against_others(self) -> bool:
        return self.target == "others"

    def by_block(
        self, trace: Trace, targets: Targets
    ) -> Float[Tensor, "batch targets parts patches"]:
        """Each block's part of the relevance: L parts, and last that of the steps after the blocks.

        The parts sum to the relevance. The parts of a selection of blocks, with the last part, sum
        to the relevance under `layers=[…]` with these blocks. Blocks that `layers` leaves out have
        parts of zero. Where the readout is followed after the last block only, there is one part.

        Raises:
            MethodError: with rectify="final", whose relevance is not a sum of parts.
        """
        if self.rectify == "final":
            raise MethodError(
                'gradtoken with rectify="final" rectifies the sum over blocks, so it has no parts '
                'by block; use "layer", "head" or None.'
            )
        sharpened = targets.sharpen(self.target, trace.logits, trace.model.activation)
        step = targets_per_chunk(trace, self.gradient)
        chunks = [
            self._parts(trace, sharpened[start : start + step])
            for start in range(0, targets.count, step)
        ]
        parts = torch.cat(chunks, dim=1)
        return self._spread(parts.flatten(1, 2), trace).unflatten(1, parts.shape[1:3])

    def _parts(
        self, trace: Trace, targets: Targets
    ) -> Float[Tensor, "batch targets parts patches"]:
        shares = self._shares(trace, targets)
        depth = max(backbone.depth for backbone in trace.backbones)
        count = depth + 1 if any(block != _TAIL for block, _ in shares) else 1
        parts = shares[0][1].new_zeros(*shares[0][1].shape[:2], count, trace.spatial)
        for block, share in shares:
            parts[:, :, block] += share[..., -trace.spatial :]
        return parts

    def _spread(
        self, relevance: Float[Tensor, "batch maps patches"], trace: Trace
    ) -> Float[Tensor, "batch maps patches"]:
        if self.spread == "near" and self.reach is not None:
            return spread_by_nearness(relevance, grid=trace.grid, reach=self.reach)
        if self.spread == "token":
            return spread_by_tokens(
                relevance,
                affinity_tokens(trace),
                self.temperature,
                grid=trace.grid,
                reach=self.reach,
            )
        if self.spread == "attention":
            try:
                calls = trace.global_calls()
            except NotSupportedError as error:
                raise MethodError(f'gradtoken with spread="attention" {error.reason}') from None
            return spread_by_attention(relevance, calls, trace.patch_grid)
        return relevance

    def all_tokens(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets tokens"]:
        """Relevance of every token, prefix included, before spreading; spatial tokens come last.

        With beta 1, depth 0 and neither rectify nor channel_weight, each step's share sums over
        tokens to the sum over heads and rows of <gamma, o> exactly (completeness).
        """
        sharpened = targets.sharpen(self.target, trace.logits, trace.model.activation)
        step = targets_per_chunk(trace, self.gradient)
        chunks = [
            self._relevance(trace, sharpened[start : start + step])
            for start in range(0, targets.count, step)
        ]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim=1)

    def _relevance(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets tokens"]:
        shares = [share for _, share in self._shares(trace, targets)]
        relevance = shares[0].new_zeros(*shares[0].shape[:2], max(s.shape[-1] for s in shares))
        for share in shares:
            relevance[..., relevance.shape[-1] - share.shape[-1] :] += share
        return relevance.clamp_min(0) if self.rectify == "final" else relevance

    def _shares(
        self, trace: Trace, targets: Targets
    ) -> list[tuple[int, Float[Tensor, "batch targets tokens"]]]:
        """The weighted relevance that each chosen step adds, with its block."""
        return [
            (block, weight * spatial_last(self._relate(step), step.order))
            for backbone in trace.backbones
            for block, weight, step in self._chosen(
                readouts(backbone, targets, gradient=self.gradient), backbone
            )
        ]

    def _chosen(self, readouts: Readouts, trace: Trace) -> list[tuple[int, float, Readout]]:
        """The steps that `layers` selects, and all of the tail, with block and weight."""
        tail = [(_TAIL, 1.0, step) for step in readouts.tail]
        if not readouts.blocks:
            if self.layers != "all":
                raise MethodError(
                    f"layers={self.layers!r} chooses among blocks, but the readout of "
                    f"{trace.model.spec} ({trace.model.anatomy.readout}) is followed after the "
                    'last one only; use layers="all".'
                )
            return tail
        chosen = select_layers(self.layers, trace.depth)
        assert all(readouts.blocks[block] for block in chosen), "a chosen block was not recorded"
        weights = [((block + 1) / trace.depth) ** self.depth for block in chosen]
        pairs = zip(chosen, weights, strict=True)
        return [(block, w, step) for block, w in pairs for step in readouts.blocks[block]] + tail

    def _relate(self, step: Readout) -> Float[Tensor, "batch targets tokens"]:
        """The relevance of a step's tokens: sum over heads and rows of a^beta phi(<gamma, v>)."""
        with full_precision(step.gradient):
            gamma = step.gradient
            if self.channel_weight == "content":
                gamma = gamma * step.output.abs()[:, :, None]
            elif self.channel_weight == "product":
                gamma = gamma * step.output[:, :, None]
            relation = gamma.flatten(2, 3) @ step.value.transpose(-2, -1)
            relation = relation.unflatten(2, gamma.shape[2:4])
            if self.rectify == "head":
                relation = relation.clamp_min(0)
            weight = step.attention if self.beta == 1 else step.attention**self.beta
            relevance = torch.einsum("bhrn,bhkrn->bkn", weight, relation)
            return relevance.clamp_min(0) if self.rectify == "layer" else relevance


def spatial_last(
    shares: Float[Tensor, "batch targets tokens"], order: tuple[int, ...] | None
) -> Float[Tensor, "batch targets tokens"]:
    """Tokens with the spatial ones last, in reading order."""
    if order is None:
        return shares
    spatial = set(order)
    others = [i for i in range(shares.shape[-1]) if i not in spatial]
    return pick(shares, [*others, *order], shares.shape[-1])
