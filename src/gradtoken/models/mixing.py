"""Do a model's tokens meet in attention that can be seen, and nowhere else?"""

from __future__ import annotations

import torch

from gradtoken.models.calls import first
from gradtoken.models.model import Model
from gradtoken.models.observe import FAILURES, with_autograd
from gradtoken.models.verify import Fact, Misread
from gradtoken.patch_grid import PatchGrid
from gradtoken.precision import wide
from gradtoken.tap import SelfAttention
from gradtoken.watch import Seen

_ALLOWED = {torch.float64: 1e-6, torch.float32: 1e-3}


def attention_alone_mixes(model: Model, seen: Seen, grid: PatchGrid) -> tuple[Fact, ...]:
    """Run each block on one token, and on it and another, while every token attends to itself.

    What comes of the first token must be the same. Nothing is said of blocks that cannot be run on
    few tokens.

    Raises:
        Misread: if the second token changes it: the block mixes tokens by a convolution, say,
            or by attention computed by hand.
    """
    one = model.layout.rows[0] if model.layout.rows else grid.positions[0]
    places = [one, grid.positions[-1]]
    worst, allowed = 0.0, _ALLOWED.get(model.dtype, 0.1)
    with with_autograd(model), torch.no_grad(), SelfAttention():
        steps = zip(model.anatomy.blocks, seen.given, strict=True)
        for index, (block, given) in enumerate(steps):
            tokens = seen.inputs[index][:, places].detach()
            try:
                alone = first(model.anatomy.step(block, tokens[:, :1].clone(), given))
                both = first(model.anatomy.step(block, tokens.clone(), given))
            except FAILURES:
                return ()
            size = wide(alone).abs().max().clamp_min(1e-12)
            gap = float((wide(both[:, :1]) - wide(alone)).abs().max() / size)
            worst = max(worst, gap)
            if gap > allowed:
                raise Misread(
                    f"block {index} of {model.spec} mixes tokens in another way than by attention "
                    "that can be seen (a convolution, or attention computed by hand), which a map "
                    "would leave out; use a model whose tokens meet in fused attention alone."
                )
    return (Fact("change of a token by another, apart from attention", worst, allowed),)
