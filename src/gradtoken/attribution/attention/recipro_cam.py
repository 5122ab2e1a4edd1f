"""ViT-ReciproCAM: the score that is left where tokens are masked but for one neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import NO_GRADIENT, Method
from gradtoken.attribution.layers import block_index
from gradtoken.attribution.widened import widened_if_narrow
from gradtoken.errors import MethodError, NotSupportedError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.reading.observe import with_autograd
from gradtoken.tap.hooks import block_hooks
from gradtoken.tap.norms import Norms
from gradtoken.tap.recorder import Recorder
from gradtoken.targets import Targets
from gradtoken.trace.continued import logits_from
from gradtoken.trace.trace import Trace

_CHUNK = 64
"""Masks that the blocks run on at once."""

_KERNEL = (1, 2, 1)
"""The 3x3 Gaussian is this row times itself, over 16."""


@dataclass(frozen=True, kw_only=True)
class ReciproCAM(Method):
    """R_i = y_i - min_j y_j, y_i being the score where all but tokens around token i are masked.

    The least score is taken away as in the published code, whose maps are scaled to 0..1.
    The mask is a 3x3 Gaussian (1, 2, 1)(1, 2, 1)^T / 16 on the grid; what lies outside of the grid
    is cut off. It multiplies the spatial tokens that enter the block twice: as normalised before
    its attention, and as the residual connection adds them. Class tokens, distillation tokens and
    registers are kept. No gradient is taken. Models in half precision compute in float32, since the
    scores of two masks differ little.

    Args:
        block: index of the block, 0-based, negative from the end.
        gaussian: whether the neighbours are kept too; without it, token i alone, with weight 1.
    """

    name: ClassVar[str] = "recipro-cam"
    summary: ClassVar[str] = "score left where a late block sees one neighbourhood; no gradient"
    source: ClassVar[str] = "Byun and Lee, ViT-ReciproCAM, 2023"
    no_libra: ClassVar[str] = NO_GRADIENT

    block: int = -1
    gaussian: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.block, int) or isinstance(self.block, bool):
            raise MethodError(f"recipro-cam's block is {self.block!r}; it must be a block's index.")
        if not isinstance(self.gaussian, bool):
            raise MethodError(
                f"recipro-cam's gaussian is {self.gaussian!r}; it must be True or False."
            )

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        trace.check_one_chain()
        model = trace.model
        index = block_index(self, "block", trace.depth, model.spec)
        block, copies = model.anatomy.blocks[index], model.writes_in_place
        with with_autograd(model), widened_if_narrow(model):
            entering, normed = _tokens_of(trace, index)
            masks = self.masks(trace.patch_grid).to(entering)[..., None]
            maps = []
            for b, row in enumerate(targets.rows):
                image, values = trace.images[b : b + 1], []
                for mask in masks.split(_CHUNK):
                    masked = partial(_instead, normed[b : b + 1] * mask)
                    change = Norms(block, masked, copies=copies)
                    with torch.no_grad(), change:
                        logits = logits_from(trace, image, index, entering[b : b + 1] * mask)
                    repeated = Targets([row] * len(mask))
                    values.append(repeated.scores(logits[:, None].expand(-1, len(row), -1)))
                maps.append(torch.cat(values).T)
        scores = torch.stack(maps)
        return scores - scores.amin(-1, keepdim=True)

    def masks(self, grid: PatchGrid) -> Float[Tensor, "patches tokens"]:
        """The factor of every token for each patch in turn; 1 for tokens that are not spatial."""
        masks = torch.zeros(grid.count, grid.tokens, dtype=torch.float32)
        masks[:, list(grid.others)] = 1
        rows, columns = (torch.arange(side) for side in grid.shape)
        near = [_weights(side, gaussian=self.gaussian) for side in (rows, columns)]
        pairs = torch.einsum("ik,jl->ijkl", *near).flatten(2).flatten(0, 1)
        masks[:, list(grid.positions)] = pairs
        return masks


def _instead(tokens: Tensor, _own: Tensor) -> Tensor:
    """The tokens that replace a block's own."""
    return tokens


def _tokens_of(
    trace: Trace, index: int
) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch tokens dim"]]:
    """The tokens that enter a block, and the same as normalised before its attention.

    Raises:
        NotSupportedError: if the block is not pre-norm, or sees other tokens than the grid's.
    """
    model = trace.model
    anatomy, copies = model.anatomy, model.writes_in_place
    watch = block_hooks(anatomy, Recorder(copies=copies), graph="tail", every_block=True)
    with torch.no_grad(), watch as record, Norms(anatomy.blocks[index], copies=copies) as norms:
        model.run(trace.images)
    entering = record.inputs[index]
    if entering.shape[1] != trace.patch_grid.tokens:
        raise NotSupportedError(
            f"masks the tokens that enter block {index}, and those of {model.spec} there are not "
            "the grid's; use a later block, or gradtoken."
        )
    return entering, norms.first().detach()


def _weights(places: Float[Tensor, " side"], *, gaussian: bool) -> Float[Tensor, "side side"]:
    """The kernel's factor along one side, for each place and each other place."""
    distance = (places[:, None] - places).abs()
    if not gaussian:
        return (distance == 0).float()
    kernel = torch.tensor([*_KERNEL[1:], 0], dtype=torch.float32) / sum(_KERNEL)
    return kernel[distance.clamp_max(2)]
