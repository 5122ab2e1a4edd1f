"""The record of one forward through a model.

A `Trace` holds the images, the logits, each attention call's tensors (references, not copies), the
outputs of the blocks that the head reads, and the graph of the forward's tail, which runs from the
last block to the output. It computes nothing: gradients and readouts are functions of a trace, in
the modules beside this one.
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
from gradtoken.tap.alignment import Alignment
from gradtoken.tap.attention_call import TAIL, AttentionCall
from gradtoken.tap.hooks import BlockRecord
from gradtoken.tap.linear_cache import LinearCall
from gradtoken.tap.patch_attention import PatchAttention


@dataclass(frozen=True)
class Trace:
    """One recorded forward, made by `record`."""

    model: Model
    images: Float[Tensor, "batch channels height width"]
    """The preprocessed images, on the model's device and in its type."""
    logits: Float[Tensor, "batch classes"]
    """The model's output; the embedding, of a model that compares images with text."""
    calls: list[AttentionCall]
    """The attention calls in order: those of the blocks from `start` on, then the tail's."""
    patch_grid: PatchGrid
    """Which tokens are spatial, and where they lie."""
    block_record: BlockRecord
    """The tokens at the inputs and outputs of blocks, and those that the head pools."""
    output: Float[Tensor, "batch classes"]
    """`logits` with the tail's graph."""
    linears: list[LinearCall]
    """The calls of the blocks' linear layers, of the readout tokens alone."""
    start: int = 0
    """Index of the first block whose attention was kept."""
    patch_attention: PatchAttention | None = None
    """The attention between patches, if blocks were named for it."""
    others: tuple[Trace, ...] = ()
    """The same forward, recorded in the model's further backbones."""

    @property
    def depth(self) -> int:
        """L, the number of transformer blocks that are followed."""
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
        """How the model is read, as verified when it was wrapped."""
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
        """The attention calls of the blocks, one per block, in which all tokens attend to all.

        Raises:
            NotSupportedError: if the model's attention is of another kind, or was not recorded.
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

    def attention_between_patches(
        self, blocks: Sequence[int]
    ) -> Float[Tensor, "batch patches patches"] | None:
        """The attention of patches to patches, a mean over the heads of some blocks.

        Returns:
            None where not every such block attends once, from all tokens to all, or attention is
            computed by hand.

        Raises:
            ModelError: if the attention was not recorded.
        """
        if self.others or not self.model.anatomy.attends or not blocks:
            return None
        between = self.patch_attention
        if between is None or between.blocks != tuple(blocks):
            calls = self.block_calls
            if self.start > min(blocks) or not all(call.query.shape[-2] for call in calls):
                raise ModelError(
                    "the attention between patches was not recorded; give record() "
                    "affinity=method.affinity_blocks(depth)."
                )
            between = PatchAttention(self.patch_grid.positions, self.patch_grid.tokens, blocks)
            for call in calls:
                between.add(call, call.place)
        return between.mean()

    def check_one_chain(self) -> None:
        """Check that the class is read at the end of one chain of blocks.

        Raises:
            NotSupportedError: if it is read from several blocks or backbones.
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
        """The rows of a block's attention that belong to the readout: its tokens and pooled ones.

        All rows where the class is read by attention after the last block.
        """
        layout = self.model.layout
        if not layout.rows and layout.pool is None:
            return list(range(self.patch_grid.tokens))
        return sorted({*layout.rows, *self.averaged()})

    def averaged(self) -> tuple[int, ...]:
        """Positions of the tokens that the head averages; none where it does not average."""
        pool = self.model.layout.pool
        return () if pool is None else averaged_tokens(pool, self.patch_grid)

    def tail_keys(self) -> tuple[int, ...]:
        """For each token of the sequence, its position among the keys of the last tail call, or -1.

        Empty where the class is not read by attention.

        Raises:
            NotSupportedError: if it is read by several calls in turn, or not from patches.
        """
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

    def pooled_order(self) -> tuple[int, ...] | None:
        """Positions of the spatial tokens among `pooled`; None stands for the last positions."""
        return self.spatial_order(self.reading.pooled, self.pooled().shape[1])

    def spatial_order(self, aligned: Alignment, count: int) -> tuple[int, ...] | None:
        """Positions of the spatial tokens among `count` aligned tokens; None: the last ones."""
        grid = self.patch_grid
        order = aligned.positions(grid.positions, grid.tokens, count)
        return None if order == tuple(range(count - grid.count, count)) else order

    def pooled(self) -> Float[Tensor, "batch tokens dim"]:
        """The tokens from which the head takes an average."""
        pool = self.model.anatomy.pool
        assert pool is not None
        pooled = self.block_record.pooled(pool)
        assert pooled is not None
        return pool.flat(pooled)
