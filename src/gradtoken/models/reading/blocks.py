"""Checking that the blocks of a forward ran once, in order, on all tokens."""

from __future__ import annotations

from collections.abc import Sequence

from gradtoken.models.model import Model
from gradtoken.models.verification import ReadingError
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.hooks import BlockRecord


def check_blocks(
    model: Model, record: BlockRecord, calls: Sequence[AttentionCall], start: int = 0
) -> None:
    """See that each block ran once, in order, on as many tokens as the first, and attended to all.

    Raises:
        ReadingError: saying what happened instead.
    """
    depth = len(model.anatomy.blocks)
    if not depth:
        return
    check_sequences(model, record)
    if record.order != list(range(depth)):
        times = max((record.order.count(index) for index in set(record.order)), default=0)
        what = (
            f"ran {times} times in one forward (test-time augmentation, or shared weights)"
            if times > 1
            else f"ran {len(record.order)} times for {depth} blocks, or in another order"
        )
        raise ReadingError(
            f"the blocks of {model.spec} {what}, so no one pass through them makes its output; "
            "explain the plain model."
        )
    if not model.anatomy.attends:
        return
    images = next(iter(record.inputs.values())).shape[0]
    if any(call.key.ndim != 4 or call.key.shape[0] != images for call in calls if call.place >= 0):
        raise ReadingError(
            f"the blocks of {model.spec} attend with their heads or tokens folded into the images, "
            "so no image's attention can be told; give scaled_dot_product_attention tensors of "
            "shape (images, heads, tokens, channels)."
        )
    counts = {call.place: call.key.shape[-2] for call in calls if call.place >= 0}
    missing = depth - start - len(counts)
    if missing:
        raise ReadingError(
            f"{model.spec} has {depth - start} blocks but attention was seen in "
            f"{depth - start - missing}, because it computes attention by hand; build it with "
            "fused attention (scaled_dot_product_attention or nn.MultiheadAttention)."
        )
    lengths = {*record.lengths, *counts.values()}
    if len(lengths) > 1:
        raise ReadingError(
            f"the number of tokens in the blocks of {model.spec} changes (from {max(lengths)} to "
            f"{min(lengths)}): tokens are pruned, merged or added on the way, so later ones are "
            "not the patches they began as; explain the model with all tokens kept."
        )


def check_sequences(model: Model, record: BlockRecord) -> None:
    """See that the blocks were called with one sequence of tokens for each image.

    Raises:
        ReadingError: if they were not called, or with something else.
    """
    shapes = [tuple(t.shape) for t in (*record.inputs.values(), *record.outputs.values())]
    if not shapes:
        raise ReadingError(f"{model.spec} does not run the modules that should be its blocks.")
    for shape in shapes:
        if len(shape) == 3 and shape[1] == 1 and shape[0] > 1:
            raise ReadingError(
                f"the blocks of {model.spec} take tokens as (tokens, images, channels), with the "
                "images second, which is not supported; use the model in open_clip, timm or "
                "transformers, where the images come first."
            )
        if len(shape) != 3:
            raise ReadingError(
                f"the modules that should be the blocks of {model.spec} take or make tensors of "
                f"shape {shape}, and no tokens (images, tokens, channels)."
            )


def check_whole(model: Model, record: BlockRecord) -> None:
    """See that the blocks of a forward of one image took its tokens in one sequence.

    Raises:
        ReadingError: if they took them in several, as windowed attention does.
    """
    parts = max(tokens.shape[0] for tokens in (*record.inputs.values(), *record.outputs.values()))
    if parts > 1:
        raise ReadingError(
            f"the modules that should be the blocks of {model.spec} take the tokens of an image in "
            f"{parts} parts (windows), which cannot be followed; windowed models of timm, "
            "transformers and torchvision are read after their last stage."
        )
