"""LeGrad: the positive gradient of each block's score by its attention, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.attribution.layers import Layers, as_index_list, select_layers
from gradtoken.models.reading.observe import with_autograd
from gradtoken.tap.anatomy import run_with_arguments
from gradtoken.tap.block_io import output_tokens
from gradtoken.tap.hooks import block_hooks
from gradtoken.tap.recorder import EagerAttention, Recorder
from gradtoken.targets import Targets
from gradtoken.trace.continued import logits_from
from gradtoken.trace.libra import backward_of, scoring
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class LeGrad(GradientMethod):
    """R_i = sum over blocks of the mean over heads and queries of (ds^l/dA^l)+ [., i].

    s^l is the score that the model's own head gives to the mean of all tokens leaving block l, and
    A^l that block's attention, on which s^l depends through that block alone.

    Args:
        layers: "all", "half" (the upper one), "last", the number of last blocks (2 is what the
            published wrapper uses), or a list of block indices.
    """

    name: ClassVar[str] = "legrad"
    summary: ClassVar[str] = "positive gradient of each block's score by its attention"
    source: ClassVar[str] = "Bousselham et al., LeGrad, 2024"

    layers: Layers = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", as_index_list(self.layers))

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        trace.global_calls()
        chosen = select_layers(self.layers, trace.depth)
        maps = []
        with _separate_block_graphs(trace, chosen, libra=self.libra) as (weights, leaving):
            means = [t.mean(1, keepdim=True).expand_as(t) for t in leaving]
            scores = _scores_of_tokens(trace, means, targets, libra=self.libra)
            for k in range(targets.count):
                grads = torch.autograd.grad(scores[:, :, k].sum(), weights, retain_graph=True)
                layers = [grad.clamp_min(0).mean(dim=(1, 2)) for grad in grads]
                maps.append(trace.patch_grid.pick(torch.stack(layers).sum(0)))
        return torch.stack(maps, dim=1)


@contextmanager
def _separate_block_graphs(
    trace: Trace, chosen: Sequence[int], *, libra: bool
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Run the chosen blocks, each with a graph of its own that starts at its attention weights.

    Yields the weights (B, H, N, N), which are leaves, and the output tokens (B, N, D) of the
    blocks; gradients are on inside the `with`.
    """
    anatomy, recorder = trace.model.anatomy, Recorder(copies=trace.model.writes_in_place)
    with with_autograd(trace.model):
        watch = block_hooks(anatomy, recorder, graph="tail", every_block=True)
        with torch.no_grad(), watch as block_record:
            trace.model.run(trace.images)
        with torch.enable_grad():
            weights, leaving = [], []
            for index in chosen:
                tap = EagerAttention(leaves=True)
                tap.place = index
                with tap, backward_of(trace.model, libra=libra):
                    tokens = trace.model.writable(block_record.inputs[index])
                    arguments = block_record.arguments[index]
                    output = run_with_arguments(anatomy.blocks[index], tokens, arguments)
                    leaving.append(output_tokens(output))
                weights += tap.weights
            yield weights, leaving


def _scores_of_tokens(
    trace: Trace,
    leaving: Sequence[Float[Tensor, "batch tokens dim"]],
    targets: Targets,
    *,
    libra: bool,
) -> Float[Tensor, "layers batch targets"]:
    """The scores of the targets where other tokens replace the output of the last block.

    Everything after that block is the model's own; all layers' tokens take one pass.

    Raises:
        NotSupportedError: if the model does not take other tokens there.
    """
    logits = logits_from(
        trace, trace.images[:1], trace.depth, torch.cat(list(leaving)), libra=libra
    )
    by_layer = logits.unflatten(0, (len(leaving), -1))[:, :, None]
    with scoring(libra=libra):
        return torch.stack([targets.scores(z.expand(-1, targets.count, -1)) for z in by_layer])
