"""Did the blocks run as they are read: once, in order, on all tokens?"""

from __future__ import annotations

from collections.abc import Sequence

from gradtoken.models.facts import Misread
from gradtoken.models.model import Model
from gradtoken.tap.tap import AttentionCall
from gradtoken.tap.watch import Seen


def check_blocks(model: Model, seen: Seen, calls: Sequence[AttentionCall], start: int = 0) -> None:
    """See that each block ran once, in order, on as many tokens as the first, and attended to all.

    Raises:
        Misread: saying what happened instead.
    """
    depth = len(model.anatomy.blocks)
    if not depth:
        return
    check_sequences(model, seen)
    if seen.entered != list(range(depth)):
        times = max((seen.entered.count(index) for index in set(seen.entered)), default=0)
        what = (
            f"ran {times} times in one forward (test-time augmentation, or shared weights)"
            if times > 1
            else f"ran {len(seen.entered)} times for {depth} blocks, or in another order"
        )
        raise Misread(
            f"the blocks of {model.spec} {what}, so no one pass through them makes its output; "
            "explain the plain model."
        )
    if not model.anatomy.attends:
        return
    images = next(iter(seen.inputs.values())).shape[0]
    if any(call.key.ndim != 4 or call.key.shape[0] != images for call in calls if call.place >= 0):
        raise Misread(
            f"the blocks of {model.spec} attend with their heads or tokens folded into the images, "
            "so no image's attention can be told; give scaled_dot_product_attention tensors of "
            "shape (images, heads, tokens, channels)."
        )
    counts = {call.place: call.key.shape[-2] for call in calls if call.place >= 0}
    missing = depth - start - len(counts)
    if missing:
        raise Misread(
            f"{model.spec} has {depth - start} blocks but attention was seen in "
            f"{depth - start - missing}, because it computes attention by hand; build it with "
            "fused attention (scaled_dot_product_attention or nn.MultiheadAttention)."
        )
    lengths = {*seen.lengths, *counts.values()}
    if len(lengths) > 1:
        raise Misread(
            f"the number of tokens in the blocks of {model.spec} changes (from {max(lengths)} to "
            f"{min(lengths)}): tokens are pruned, merged or added on the way, so later ones are "
            "not the patches they began as; explain the model with all tokens kept."
        )


def check_sequences(model: Model, seen: Seen) -> None:
    """See that the blocks were called with one sequence of tokens for each image.

    Raises:
        Misread: if they were not called, or with something else.
    """
    shapes = [tuple(t.shape) for t in (*seen.inputs.values(), *seen.leaving.values())]
    if not shapes:
        raise Misread(f"{model.spec} does not run the modules that should be its blocks.")
    for shape in shapes:
        if len(shape) == 3 and shape[1] == 1 and shape[0] > 1:
            raise Misread(
                f"the blocks of {model.spec} take tokens as (tokens, images, channels), with the "
                "images second, which is not supported; use the model in open_clip, timm or "
                "transformers, where the images come first."
            )
        if len(shape) != 3:
            raise Misread(
                f"the modules that should be the blocks of {model.spec} take or make tensors of "
                f"shape {shape}, and no tokens (images, tokens, channels)."
            )
