"""One forward with an autograd graph, for methods that need gradients inside the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.images.patch_grid import PatchGrid
from gradtoken.precision import wide
from gradtoken.tap.alignment import along_sequence
from gradtoken.tap.hooks import block_hooks, contributing_calls
from gradtoken.tap.norms import Norms
from gradtoken.tap.recorder import EagerAttention
from gradtoken.targets import Targets
from gradtoken.trace.autograd import gradients, gradients_enabled
from gradtoken.trace.libra import run_with_gradient, scoring
from gradtoken.trace.trace import Trace


@dataclass(frozen=True)
class ForwardGraph:
    """Nodes of the autograd graph of a forward.

    Args:
        attention: attention weights of each block.
        tail: weights of the attention after the last block by which the class is read, if any.
        entering: the tokens entering each block.
        norms: the normalisations of the last block.
        scores: the score y of each target.
        rows: the rows of the blocks' attention that belong to the readout.
        grid: which of the tokens are spatial.
        keys: for each token of the sequence, its position among the keys of the attention after the
            last block, or -1; empty without such attention.
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
        """All attention weights in order: those of the blocks, then those of the tail."""
        return [*self.attention, *self.tail]

    def target_gradients(self, at: list[Tensor]) -> Iterator[list[Tensor]]:
        """For each target in turn, the gradients of its score at some nodes."""
        last = self.scores.shape[1] - 1
        for k, score in enumerate(self.scores.sum(0)):
            yield list(gradients(score, at, k < last))

    def maps(
        self, at: list[Tensor], combine: Callable[[list[Tensor]], Float[Tensor, "batch tokens"]]
    ) -> Float[Tensor, "batch targets patches"]:
        """A map for each target from the gradients at some nodes; prefix tokens are dropped."""
        maps = []
        for grads in self.target_gradients(at):
            with torch.no_grad():
                maps.append(self.grid.pick(combine(grads)))
        return torch.stack(maps, dim=1)

    def readout_row(
        self, matrix: Float[Tensor, "batch heads queries tokens"], *, step: int = -1
    ) -> Float[Tensor, "batch tokens"]:
        """The mean over heads and readout rows of a matrix of attention step `step`."""
        if step % len(self.steps) >= len(self.attention):
            return self._padded(matrix.mean(dim=(1, 2)))
        return matrix[:, :, self.rows].mean(dim=(1, 2))

    def head_weights(
        self, tail: Float[Tensor, "batch queries tokens"] | None
    ) -> Float[Tensor, "batch tokens"]:
        """The head's weights of the last block's tokens, which methods multiply through the blocks.

        Equal weights where the head averages tokens, a single one where it reads one token, or else
        the mean over queries of a method's matrix of the attention after the last block (`tail`).
        """
        if tail is not None:
            return self._padded(tail.mean(dim=1))
        like = self.attention[-1]
        row = like.new_zeros(len(like), like.shape[-1])
        row[:, self.rows] = 1 / len(self.rows)
        return row

    def _padded(self, row: Float[Tensor, "batch keys"]) -> Float[Tensor, "batch tokens"]:
        """A row over the tail's keys as one over the sequence, zero where a token is no key."""
        return along_sequence(row, self.keys)


@contextmanager
def forward_with_graph(
    trace: Trace,
    targets: Targets,
    *,
    images: Tensor | None = None,
    normed: Callable[[Tensor], Tensor] | None = None,
    libra: bool = False,
    tap: EagerAttention | None = None,
) -> Iterator[ForwardGraph]:
    """A forward with an autograd graph and eager attention; gradients are on inside the `with`.

    Args:
        trace: a record of the images.
        targets: K targets for each image.
        images: other pixels of the trace's shape; None for the trace's own.
        normed: maps the tokens normalised before the last block's attention to those that
            replace them.
        libra: whether the gradients are LibraGrad's; those by attention weights then end there.
        tap: computes the attention; None for the model's own.

    Raises:
        NotSupportedError: if not every token attends to every token in each block, or LibraGrad
            has no rule for an operation of the model.
    """
    trace.global_calls()
    anatomy, copies = trace.model.anatomy, trace.model.writes_in_place
    tap = EagerAttention(leaves=libra, copies=copies) if tap is None else tap
    with gradients_enabled(trace.model):
        pixels = (trace.images if images is None else images).clone().requires_grad_()
        watch = block_hooks(anatomy, tap, graph="whole", every_block=True)
        with watch as block_record, tap, Norms(anatomy.blocks[-1], normed, copies=copies) as norms:
            logits = run_with_gradient(trace.model, pixels, libra=libra)
        used = {id(call) for call in contributing_calls(tap.calls, logits)}
        weights = [w for w, call in zip(tap.weights, tap.calls, strict=True) if id(call) in used]
        with scoring(libra=libra):
            scores = targets.scores(wide(logits)[:, None].expand(-1, targets.count, -1))
        yield ForwardGraph(
            attention=weights[: trace.depth],
            tail=weights[trace.depth :],
            entering=[block_record.inputs[index] for index in range(trace.depth)],
            norms=norms,
            scores=scores,
            rows=trace.rows(),
            grid=trace.patch_grid,
            keys=trace.tail_keys(),
        )
