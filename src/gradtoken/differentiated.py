"""One differentiable forward of a model, for methods that need gradients inside its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.norms import Norms


@dataclass(frozen=True)
class Differentiated:
    """What a forward with a graph showed: nodes of that graph, to be differentiated.

    Args:
        attention: weights of each block.
        tail: weights of the attention after the last block by which the class is read, if any.
        entering: the tokens entering each block.
        norms: the normalisations of the last block.
        scores: y of every target.
        rows: the rows of the blocks' attention that belong to the readout.
        spatial: N, how many of the last tokens are spatial.
    """

    attention: list[Float[Tensor, "batch heads tokens tokens"]]
    tail: list[Float[Tensor, "batch heads queries tokens"]]
    entering: list[Float[Tensor, "batch tokens dim"]]
    norms: Norms
    scores: Float[Tensor, "batch targets"]
    rows: list[int]
    spatial: int

    @property
    def steps(self) -> list[Tensor]:
        """All attention weights in order, those after the last block included."""
        return [*self.attention, *self.tail]

    def each_target(self, at: list[Tensor]) -> Iterator[list[Tensor]]:
        """For each target in turn, the gradients of its score at some nodes, in their shapes."""
        last = self.scores.shape[1] - 1
        for k, score in enumerate(self.scores.sum(0)):
            yield list(gradients(score, at, k < last))

    def maps(
        self, at: list[Tensor], combine: Callable[[list[Tensor]], Float[Tensor, "batch tokens"]]
    ) -> Float[Tensor, "batch targets patches"]:
        """A map for each target, made of the gradients at some nodes; prefix tokens are dropped."""
        found = []
        for grads in self.each_target(at):
            with torch.no_grad():
                found.append(combine(grads)[:, -self.spatial :])
        return torch.stack(found, dim=1)

    def readout_row(
        self, matrix: Float[Tensor, "batch heads queries tokens"], *, step: int = -1
    ) -> Float[Tensor, "batch tokens"]:
        """The mean over heads and readout rows of a matrix that belongs to an attention step."""
        step %= len(self.steps)
        rows = matrix if step >= len(self.attention) else matrix[:, :, self.rows]
        return self._padded(rows.mean(dim=(1, 2)))

    def start(
        self, tail: Float[Tensor, "batch queries tokens"] | None
    ) -> Float[Tensor, "batch tokens"]:
        """How the head reads the last block's tokens, to be multiplied on through the blocks.

        Their mean where it averages, one of them where it reads a token, or else what a method
        makes of the attention after the last block (`tail`, without heads).
        """
        if tail is not None:
            return self._padded(tail.mean(dim=1))
        like = self.attention[-1]
        row = like.new_zeros(len(like), like.shape[-1])
        row[:, self.rows] = 1 / len(self.rows)
        return row

    def _padded(self, row: Float[Tensor, "batch seen"]) -> Float[Tensor, "batch tokens"]:
        """With zeros for prefix tokens that an attention after the last block does not see."""
        return F.pad(row, (self.attention[-1].shape[-1] - row.shape[-1], 0))


def gradients(
    score: Tensor, at: list[Tensor], retain_graph: bool = False, *, vector: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The gradients of a score at some nodes: zeros where it does not depend on one."""
    found = torch.autograd.grad(score, at, vector, retain_graph=retain_graph, allow_unused=True)
    return tuple(torch.zeros_like(o) if g is None else g for o, g in zip(at, found, strict=True))


def each_gradient(output: Tensor, at: list[Tensor], vectors: Tensor) -> list[Tensor]:
    """The vector-Jacobian products of many vectors (K, *output) at some nodes, each (K, *node).

    They take one batched backward pass; what cannot run batched (a custom function of the model's,
    say) runs vector by vector. The graph is kept.
    """
    if len(vectors) > 1:
        try:
            return list(torch.vmap(partial(_product, output, at))(vectors))
        except RuntimeError as error:
            if "vmap" not in str(error) and "functorch" not in str(error):
                raise
    each = [gradients(output, at, True, vector=vector) for vector in vectors]
    return [torch.stack(column) for column in zip(*each, strict=True)]


def _product(output: Tensor, at: list[Tensor], vector: Tensor) -> tuple[Tensor, ...]:
    return gradients(output, at, True, vector=vector)
