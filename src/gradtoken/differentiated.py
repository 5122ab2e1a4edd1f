"""One differentiable forward of a model, for methods that need gradients inside its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.alignment import along_sequence
from gradtoken.norms import Norms
from gradtoken.patch_grid import PatchGrid


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
        grid: which of the tokens are spatial.
        keys: for each token of the sequence, its position among those that the attention after the
            last block attends to, or -1; empty without such attention.
    """

    attention: list[Float[Tensor, "batch heads tokens tokens"]]
    tail: list[Float[Tensor, "batch heads queries tokens"]]
    entering: list[Float[Tensor, "batch tokens dim"]]
    norms: Norms
    scores: Float[Tensor, "batch targets"]
    rows: list[int]
    grid: PatchGrid
    keys: tuple[int, ...]

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
                found.append(self.grid.pick(combine(grads)))
        return torch.stack(found, dim=1)

    def readout_row(
        self, matrix: Float[Tensor, "batch heads queries tokens"], *, step: int = -1
    ) -> Float[Tensor, "batch tokens"]:
        """The mean over heads and readout rows of a matrix that belongs to an attention step."""
        if step % len(self.steps) >= len(self.attention):
            return self._padded(matrix.mean(dim=(1, 2)))
        return matrix[:, :, self.rows].mean(dim=(1, 2))

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
        """With zeros for tokens that an attention after the last block does not see."""
        return along_sequence(row, self.keys)


def gradients(
    score: Tensor | Sequence[Tensor],
    at: list[Tensor],
    retain_graph: bool = False,
    *,
    vector: Tensor | Sequence[Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """The gradients of a score at some nodes: zeros where it does not depend on one."""
    found = torch.autograd.grad(score, at, vector, retain_graph=retain_graph, allow_unused=True)
    return tuple(torch.zeros_like(o) if g is None else g for o, g in zip(at, found, strict=True))


def each_gradient(
    outputs: Sequence[Tensor], at: list[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    """The vector-Jacobian products of many vectors at some nodes, each (K, *node).

    The vectors of one output are (K, *output); products are summed over outputs.

    They take one batched backward pass; what cannot run batched (a custom function of the model's,
    say) runs vector by vector. The graph is kept.
    """
    if len(vectors[0]) > 1:
        try:
            return list(torch.vmap(partial(_product, outputs, at))(*vectors))
        except RuntimeError as error:
            if "vmap" not in str(error) and "functorch" not in str(error):
                raise
    each = [_product(outputs, at, *row) for row in zip(*vectors, strict=True)]
    return [torch.stack(column) for column in zip(*each, strict=True)]


def _product(outputs: Sequence[Tensor], at: list[Tensor], *vectors: Tensor) -> tuple[Tensor, ...]:
    return gradients(outputs, at, True, vector=vectors)
