"""One forward through a model, and everything a method may ask of it.

The forward runs once and keeps no graph but for its tail, from the last block to the output; the
tap holds references to each attention call's keys and values. What depends on a class is computed
on demand: along the readout's own stream, or by backpropagation through the whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import ModelError, NotSupportedError
from gradtoken.images.patch_grid import PatchGrid, averaged_tokens
from gradtoken.models.model import Model
from gradtoken.models.verification import Reading
from gradtoken.tap.alignment import Alignment, along_sequence
from gradtoken.tap.attention_call import TAIL, AttentionCall
from gradtoken.tap.hooks import BlockRecord
from gradtoken.tap.linear_cache import LinearCall


@dataclass(frozen=True)
class Trace:
    """One recorded forward. Made by `record`.

    `logits` is the model's output; of a model that compares pictures with text, its embedding.
    """

    model: Model
    images: Float[Tensor, "batch channels height width"]
    logits: Float[Tensor, "batch classes"]
    calls: list[AttentionCall]
    patch_grid: PatchGrid
    seen: BlockRecord
    output: Float[Tensor, "batch classes"]
    """`logits` with the tail's graph."""
    linears: list[LinearCall]
    """What linear layers of the blocks made of the readout tokens."""
    start: int = 0
    """The first block whose attention was kept."""
    others: tuple[Trace, ...] = ()
    """The same forward as the model's further backbones showed it."""

    @property
    def depth(self) -> int:
        """L, the number of transformer blocks followed."""
        return len(self.model.anatomy.blocks)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of spatial tokens."""
        return self.patch_grid.shape

    @property
    def spatial(self) -> int:
        """N, the number of spatial tokens."""
        return self.patch_grid.count

    @property
    def reading(self) -> Reading:
        """What was verified of the model."""
        assert self.model.reading is not None
        return self.model.reading

    @property
    def backbones(self) -> tuple[Trace, ...]:
        """This trace and those of the model's further backbones."""
        return (self, *self.others)

    @property
    def block_calls(self) -> list[AttentionCall]:
        """The attention calls of the blocks, in order."""
        return [call for call in self.calls if call.place != TAIL]

    @property
    def tail_calls(self) -> list[AttentionCall]:
        """The attention calls after the last block."""
        return [call for call in self.calls if call.place == TAIL]

    def global_calls(self) -> list[AttentionCall]:
        """One call per block in which every token attends to every token.

        Raises:
            MethodError: if the model's attention is not of that kind, or is not seen.
        """
        calls = self.block_calls
        shape = (self.patch_grid.tokens,) * 2
        self.check_one_chain()
        whole = all((c.query.shape[-2], c.key.shape[-2]) == shape for c in calls)
        if not calls or not whole or [c.place for c in calls] != list(range(self.depth)):
            raise NotSupportedError(
                f"needs the attention between all tokens in every block, which "
                f"{self.model.spec} does not have or computes by hand; use gradtoken."
            )
        return calls

    def check_one_chain(self) -> None:
        """See that the class is read at the end of one chain of blocks.

        Raises:
            MethodError: if it is read from several blocks or backbones.
        """
        anatomy = self.model.anatomy
        if self.others:
            what = f"{len(self.backbones)} backbones"
        elif len(anatomy.reads) > 1:
            what = f"several blocks ({anatomy.readout})"
        else:
            return
        raise NotSupportedError(
            f"follows one chain of blocks to its end, and {self.model.spec} reads its "
            f"class from {what}; use gradtoken."
        )

    def rows(self) -> list[int]:
        """The rows of a block's attention that belong to the readout: its tokens and those pooled.

        Of a readout that attends for itself after the last block, all rows.
        """
        layout = self.model.layout
        if not layout.rows and layout.pool is None:
            return list(range(self.patch_grid.tokens))
        return sorted({*layout.rows, *self.averaged()})

    def averaged(self) -> tuple[int, ...]:
        """Positions of the tokens that the head averages; none where it does not average."""
        pool = self.model.layout.pool
        return () if pool is None else averaged_tokens(pool, self.patch_grid)

    def tail_orders(self, calls: Sequence[AttentionCall]) -> list[tuple[int, ...] | None]:
        """For each attention after the last block, positions of the spatial tokens among those it
        attends to; None for the last ones. Calls that attend to no patches have none ().

        Raises:
            ModelError: if there are other calls than when the model was read.
        """
        if len(calls) != len(self.reading.tail):
            raise ModelError(
                f"{self.model.spec} made {len(calls)} attention calls after its last block, and "
                f"{len(self.reading.tail)} when it was read; wrap it again."
            )
        return [
            () if aligned is None else self._order(aligned, call.key.shape[-2])
            for call, aligned in zip(calls, self.reading.tail, strict=True)
        ]

    def tail_keys(self) -> tuple[int, ...]:
        """For each token of the sequence, its position among those that the last attention attends
        to, or -1; empty where the class is not read by attention."""
        if not self.tail_calls:
            return ()
        if len(self.tail_calls) > 1 and self.model.anatomy.attends:
            raise NotSupportedError(
                f"begins with the attention by which the class is read, and "
                f"{self.model.spec} reads it by {len(self.tail_calls)} attentions in turn; use "
                "gradtoken."
            )
        aligned, count = self.reading.tail[-1], self.tail_calls[-1].key.shape[-2]
        if aligned is None:
            raise NotSupportedError(
                f"begins with the attention by which the class is read, which in "
                f"{self.model.spec} is not to the patches; use gradtoken."
            )
        tokens = self.patch_grid.tokens
        keys = aligned.positions(range(tokens), tokens, count)
        return tuple(key if 0 <= key < count else -1 for key in keys)

    def tail_patches(self, row: Float[Tensor, "batch keys"]) -> Float[Tensor, "batch patches"]:
        """The patches' values in a row of the last attention after the blocks.

        Raises:
            MethodError: if it is not to the patches.
        """
        return self.patch_grid.pick(along_sequence(row, self.tail_keys()))

    def pooled_order(self) -> tuple[int, ...] | None:
        """Positions of the spatial tokens among those that the head averages; None: the last."""
        return self._order(self.reading.pooled, self.pooled().shape[1])

    def pooled_rows(self) -> list[int]:
        """Positions, among the tokens that `pooled` gives, of those that the head averages."""
        count, grid = self.pooled().shape[1], self.patch_grid
        return list(self.reading.pooled.positions(self.averaged(), grid.tokens, count))

    def _order(self, aligned: Alignment, count: int) -> tuple[int, ...] | None:
        grid = self.patch_grid
        order = aligned.positions(grid.positions, grid.tokens, count)
        return None if order == tuple(range(count - grid.count, count)) else order

    def pooled(self) -> Float[Tensor, "batch tokens dim"]:
        """The tokens that the head averages."""
        pool = self.model.anatomy.pool
        assert pool is not None
        pooled = self.seen.pooled(pool)
        assert pooled is not None
        return pool.flat(pooled)
