"""GradToken: decouple the readout by its class-aware gradient, then relate it to the patches.

After Cheng, Liang, Lu, Cheung, "GradToken: Decoupling tokens with class-aware gradient for visual
explanation of Transformer network", Neural Networks 181:106837, 2025. The equations are this
project's derivation from that paper's abstract (docs/paper.md); its full text was not at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.competition import (
    RIVALS,
    Competition,
    RivalWeight,
    competition,
    have_rivals,
)
from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.attribution.layers import Layers, as_index_list, select_layers
from gradtoken.attribution.options import check_number, check_whole, is_number
from gradtoken.attribution.relations import ChannelWeight, Rectify, Relations, Relevance
from gradtoken.attribution.spread import (
    Reach,
    Spread,
    SpreadLayers,
    check_reach,
    spread_relevance,
)
from gradtoken.attribution.steps import TAIL_PART, chosen_steps
from gradtoken.errors import MethodError, NotSupportedError
from gradtoken.targets import Targets, kind_for, parse_kind
from gradtoken.targets.activation import Activation
from gradtoken.trace.autograd import output_gradients
from gradtoken.trace.backward import Seeds
from gradtoken.trace.gradients import ClassGradients, targets_per_chunk
from gradtoken.trace.trace import Trace

PRESETS: dict[str, dict[str, Any]] = {
    "faithful": {
        "beta": 1.0,
        "depth": 0.0,
        "rectify": None,
        "rivals": 0,
        "spread": None,
    },
    "sharp": {"slope": 0.0},
    "contrastive": {"rectify": None},
    "v0.1": {"rectify": None, "rivals": 0, "target": "auto", "spread": "near"},
}
"""Named settings: see `GradToken`."""

_COLDEST = 1e-3

_CHOICES: dict[str, tuple[Any, ...]] = {
    "gradient": ("auto", "stream", "full"),
    "rectify": (None, "head", "layer", "final"),
    "rival_weight": ("equal", "likelihood", "overlap"),
    "spread_layers": ("all", "lower"),
    "spread": ("auto", None, "mutual", "near", "token", "attention"),
    "channel_weight": (None, "content", "product"),
}


@dataclass(frozen=True, kw_only=True)
class GradToken(GradientMethod):
    """R_i = sum over steps and heads of w phi(rho_i), less a floor, spread over patches.

    rho_i = <gamma, v_i> relates the readout to token i: v_i is the token's value vector and gamma
    the gradient, by what a head writes into the readout, of the target's score less that of its
    rivals, y_c - sum_k omega_k y_k. w = (l / L)^depth a_i^beta, a being the readout's attention to
    token i; phi is a leaky rectification. The steps are those that make the readout: the blocks for
    a class token, the pool's attention for an attention pool, class attention, and an average of
    tokens as a step with equal weights. A readout of several tokens (class and distillation token,
    averaged tokens) sums over them.

    Args:
        gradient: "stream" (along the readout alone, about 1/N of a backward pass), "full"
            (backpropagation through the whole model) or "auto": "full" where the head averages
            tokens, whose way through the blocks is the whole model, and "stream" elsewhere; with
            `libra`, always "full".
        layers: "all", "half" (the upper one), "last", the number of last blocks, or a list of
            block indices (0-based, negative from the end).
        beta: exponent of the attention weight; 1 is first order, smaller damps attention sinks.
        depth: block l of L (from 1) has the weight (l / L)^depth; 0 weighs all alike. What is read
            late is decoupled best. Steps after the last block have weight 1.
        rectify: "head" is a leaky rectification of each head's relation, phi(x) = x for x > 0 and
            slope * x below, except for contrasts, whose two sides count alike; "layer" and "final"
            clamp the sum of a step, or of all, at 0; None keeps the sign.
        slope: how much evidence against the target counts under rectify="head": 1 as much as
            supporting evidence, 0 not at all.
        centre: whether, under rectify="head", the mean over the patches of what rectification adds,
            (1 - slope) * max(rho, 0), is taken away: the floor that rectified noise leaves
            everywhere.
        rivals: m, how many of the likeliest other classes are rivals of a class; 0 for none, "auto"
            for 12 where the classes share a softmax and 0 elsewhere. Targets other than classes
            have no rivals, nor has a class with another `target` than "logit".
        rival_weight: omega_k, before they are scaled to sum to 1: "equal", "likelihood" (the square
            root of the rival's probability) or "overlap" (the same times 1 minus the correlation of
            both classes' supporting evidence in the last step, at least 0: rivals count as far as
            they are elsewhere in the image).
        spread: one step from patch to patch: "mutual" (along the patches' mutual attention, and
            near), "near" (to neighbours), "token" (to patches that are alike, by the cosine of the
            tokens entering the second-last block, and near), "attention" (along their attention),
            None, or "auto": "mutual" where all patches attend to all in the blocks that it
            averages, of one backbone, and "near" elsewhere.
        spread_layers: the blocks whose attention "mutual" averages: "all" or "lower" (half).
        temperature: softmax temperature of the token spread.
        reach: how far the mutual, near and token spread go, as a standard deviation relative to the
            grid's mean side; "auto" is 0.15 for mutual and 0.05 for the others. With None the token
            spread goes anywhere.
        channel_weight: None, "content" (gamma * |o|) or "product" (gamma * o), o being what the
            head writes.
        target: what class targets mean: "logit", "log_prob", "rivals(m, w)" (the logit minus w
            times the mean of the m strongest other logits), "others" (minus the mean of the other
            requested classes) or "auto": "rivals(5, 0.5)" where the classes share a softmax and
            "logit" elsewhere. Contrasts, functions of the output and text prompts stay as they are.

    `make_method` and `explain` also take `preset=`: "faithful" (signed, beta 1, equal weights of
    blocks, no rivals, no spread: complete to first order), "sharp" (supporting evidence only),
    "contrastive" (signed evidence against rivals) or "v0.1" (the default of version 0.1). Explicit
    options override those of a preset.
    """

    name: ClassVar[str] = "gradtoken"
    summary: ClassVar[str] = "class token decoupled by class-aware gradient, related to patches"
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    source: ClassVar[str] = "Cheng et al., Neural Networks 181:106837, 2025 (our derivation)"

    gradient: Literal["auto", "stream", "full"] = "auto"
    layers: Layers = "all"
    beta: float = 0.5
    depth: float = 2.0
    rectify: Rectify = "head"
    slope: float = 0.7
    centre: bool = True
    rivals: int | Literal["auto"] = "auto"
    rival_weight: RivalWeight = "overlap"
    spread: Spread = "auto"
    spread_layers: SpreadLayers = "lower"
    temperature: float = 0.1
    reach: Reach = "auto"
    channel_weight: ChannelWeight = None
    target: str = "logit"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, choices in _CHOICES.items():
            value = getattr(self, option)
            if not (value is None or isinstance(value, str)) or value not in choices:
                raise MethodError(
                    f"gradtoken's {option} is {value!r}; it can be {', '.join(map(repr, choices))}."
                )
        object.__setattr__(self, "layers", as_index_list(self.layers))
        check_number(self, "beta")
        check_number(self, "depth")
        check_number(self, "temperature", _COLDEST)
        if self.rivals != "auto":
            check_whole(self, "rivals", least=0)
        if not is_number(self.slope) or not 0 <= self.slope <= 1:
            raise MethodError(f"gradtoken's slope is {self.slope!r}; it must be from 0 to 1.")
        check_reach(self.reach, self.spread)
        if self.libra and self.gradient == "stream":
            raise MethodError('gradtoken with libra=True needs gradient="auto" or "full".')
        parse_kind(self.target)

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        return self._spread(self.all_tokens(trace, targets)[..., -trace.spatial :], trace)

    def options_for(self, activation: Activation) -> dict[str, Any]:
        return {
            **self.options(),
            "target": kind_for(self.target, activation),
            "rivals": self._rivals_on(activation),
        }

    def _rivals_on(self, activation: Activation) -> int:
        return RIVALS[activation] if self.rivals == "auto" else self.rivals

    def first_block(self, depth: int) -> int:
        if not depth or self.libra or self.gradient == "full" or self.needs_queries():
            return 0
        return select_layers(self.layers, depth)[0]

    def needs_queries(self) -> bool:
        return self.spread == "attention"

    def affinity_blocks(self, depth: int) -> range:
        if self.spread not in ("auto", "mutual"):
            return range(0)
        return range(depth if self.spread_layers == "all" else (depth + 1) // 2)

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
        depth = max(backbone.depth for backbone in trace.backbones)
        chunks = []
        for shares in self._shares(trace, targets):
            count = depth + 1 if any(block != TAIL_PART for block, _ in shares) else 1
            parts = shares[0][1].new_zeros(*shares[0][1].shape[:2], count, trace.spatial)
            for block, share in shares:
                parts[:, :, block] += share[..., -trace.spatial :]
            chunks.append(parts)
        parts = torch.cat(chunks, dim=1)
        return self._spread(parts.flatten(1, 2), trace).unflatten(1, parts.shape[1:3])

    def all_tokens(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets tokens"]:
        """Relevance of every token, prefix included, before spreading; spatial tokens come last.

        With the preset "faithful", each step's share sums over tokens to the sum over heads and
        rows of <gamma, o> exactly (completeness).
        """
        chunks = []
        for shares in self._shares(trace, targets):
            longest = max(share.shape[-1] for _, share in shares)
            relevance = shares[0][1].new_zeros(*shares[0][1].shape[:2], longest)
            for _, share in shares:
                relevance[..., longest - share.shape[-1] :] += share
            chunks.append(relevance.clamp_min(0) if self.rectify == "final" else relevance)
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim=1)

    def _shares(self, trace: Trace, targets: Targets) -> Iterator[list[tuple[int, Relevance]]]:
        """The weighted relevance that each chosen step adds, with its block; targets in chunks."""
        targets = targets.sharpen(self.target, trace.logits, trace.model.activation)
        gradient = "full" if self.libra else self.gradient
        gradients = [ClassGradients(b, gradient, libra=self.libra) for b in trace.backbones]
        rivals = self._competition(trace, targets)
        step = targets_per_chunk(trace, gradient)
        for start in range(0, targets.count, step):
            chunk = targets[start : start + step] if step < targets.count else targets
            two_sided = chunk.two_sided(trace.logits.device)
            seeds = output_gradients(trace.logits, chunk, libra=self.libra)
            if rivals is not None:
                last = partial(self._last_evidence, trace, gradients)
                seeds = rivals.against(chunk, seeds, last)
            yield [
                (block, weight * self._relations.relevance(readout, trace.spatial, two_sided))
                for backbone, source in zip(trace.backbones, gradients, strict=True)
                for block, weight, readout in chosen_steps(
                    source.readouts(seeds), backbone, layers=self.layers, depth=self.depth
                )
            ]

    def _competition(self, trace: Trace, targets: Targets) -> Competition | None:
        activation = trace.model.activation
        count = self._rivals_on(activation)
        if not count or trace.logits.shape[-1] == 1 or not have_rivals(targets):
            return None
        return competition(trace.logits, activation, rivals=count, weight=self.rival_weight)

    def _last_evidence(
        self, trace: Trace, gradients: list[ClassGradients], seeds: Seeds
    ) -> Float[Tensor, "batch targets patches"]:
        """The supporting evidence in the steps that the head reads last."""
        steps = [step for source in gradients for step in source.last_steps(seeds)]
        maps = [self._relations.supporting(step)[..., -trace.spatial :] for step in steps]
        return torch.stack(maps).sum(0)

    @property
    def _relations(self) -> Relations:
        return Relations(self.beta, self.channel_weight, self.rectify, self.slope, self.centre)

    def _spread(
        self, relevance: Float[Tensor, "batch maps patches"], trace: Trace
    ) -> Float[Tensor, "batch maps patches"]:
        try:
            return spread_relevance(
                relevance,
                trace,
                self.spread,
                blocks=self.affinity_blocks(trace.depth),
                temperature=self.temperature,
                reach=self.reach,
            )
        except NotSupportedError as error:
            raise MethodError(f'gradtoken with spread="{self.spread}" {error.reason}') from None
