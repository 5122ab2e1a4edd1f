"""The integrated gradient of the attention by which the class is read."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.trace import Trace


def integrated_attention(
    trace: Trace, targets: Targets, steps: int, *, libra: bool = False
) -> Float[Tensor, "batch targets patches"]:
    """E_h[(1/m sum_s G(s/m x))+] in the readout's row, s = 1 to m.

    G is the gradient of the score by the last attention when the model's input is scaled
    (in normalised space, where zero is the grey of the mean).

    Args:
        trace: a record of the images.
        targets: K targets for each image.
        steps: m, the points of the integral.
        libra: whether the gradients are LibraGrad's.
    """
    total: Tensor | None = None
    for step in range(1, steps + 1):
        images = trace.images * (step / steps)
        with forward_with_graph(trace, targets, images=images, libra=libra) as graph:
            at = [graph.steps[-1]]
            gradient = torch.stack([grads[0] for grads in graph.target_gradients(at)], dim=1)
        total = gradient if total is None else total + gradient
    assert total is not None
    rows = [graph.readout_row((total[:, k] / steps).clamp_min(0)) for k in range(targets.count)]
    return trace.patch_grid.pick(torch.stack(rows, dim=1))
