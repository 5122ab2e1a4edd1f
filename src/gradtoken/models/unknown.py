"""Models that no family file knows: their parts are found by watching one forward.

The blocks are the longest list of modules of one kind. Which tokens the head reads shows in the
gradient of its output by the last block's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gradtoken.errors import ModelError
from gradtoken.layout import TokenLayout, infer_grid
from gradtoken.models.anatomy import Anatomy, Pool
from gradtoken.tap import TAIL, Recorder
from gradtoken.watch import Seen, watching

_MOST_PREFIX = 16
_SAME = 1e-3


def read(
    module: nn.Module, name: str, images: Tensor, layout: TokenLayout | None
) -> tuple[Anatomy, TokenLayout]:
    """Where things happen in a module, as one forward on `images` (1, C, H, W) shows.

    Raises:
        ModelError: if its blocks, its attention, its grid or its readout cannot be made out.
    """
    blocks = _blocks(module, name)
    seen, output, places = _watch(module, Anatomy("unknown", blocks), images, name)
    assert seen.last is not None
    if set(range(len(blocks))) - places:
        raise ModelError(
            f"{name} ({type(module).__name__}) has {len(blocks)} blocks, but attention was seen "
            f"in {len(places - {TAIL})}, because it computes attention by hand; use "
            "scaled_dot_product_attention or nn.MultiheadAttention in it."
        )
    if layout is not None and (layout.rows or TAIL in places):
        return Anatomy("as laid out", blocks), layout
    prefix = _prefix(images, seen.last.shape[1], name) if layout is None else layout.prefix
    grid = None if layout is None else layout.grid
    patch = None if layout is None else layout.patch
    if TAIL in places:
        return Anatomy("attention pool", blocks), TokenLayout(patch, prefix, (), grid=grid)
    read_rows = _rows_read(output, seen.last)
    if max(read_rows) < prefix:
        if read_rows != list(range(len(read_rows))):
            raise ModelError(
                f"{name} reads its class from tokens {read_rows}, which are not its first ones; "
                "pass wrap(…, layout=TokenLayout(…))."
            )
        words = "class token" if len(read_rows) == 1 else f"{len(read_rows)} class tokens"
        return Anatomy(words, blocks), TokenLayout(patch, prefix, tuple(read_rows), grid=grid)
    return _averaged(module, name, images, blocks, TokenLayout(patch, prefix, (), grid=grid))


def _blocks(module: nn.Module, name: str) -> tuple[nn.Module, ...]:
    lists = [
        tuple(part)
        for part in module.modules()
        if isinstance(part, (nn.ModuleList, nn.Sequential))
        and len(part) > 1
        and len({type(child) for child in part}) == 1
        and next(part[0].parameters(), None) is not None
    ]
    if not lists:
        raise ModelError(
            f"{name} ({type(module).__name__}) is not a Vision Transformer that can be read: it "
            "holds no list of equal blocks."
        )
    return max(lists, key=len)


def _watch(
    module: nn.Module, anatomy: Anatomy, images: Tensor, name: str
) -> tuple[Seen, Tensor, set[int]]:
    recorder = Recorder()
    modes = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad(), watching(anatomy, recorder, tail_graph=True) as seen, recorder:
            output: Any = module(images)
    except (RuntimeError, TypeError, ValueError, AssertionError, KeyError) as error:
        raise ModelError(
            f"{name} ({type(module).__name__}) is not a Vision Transformer that can be read: "
            f"{(str(error).splitlines() or ['it failed'])[0]}."
        ) from None
    finally:
        for part in modes:
            part.training = True
    tokens = seen.last
    sequence = isinstance(tokens, Tensor) and tokens.ndim == 3 and tokens.shape[0] == 1
    if not sequence or not isinstance(output, Tensor) or output.ndim != 2:
        raise ModelError(
            f"{name} ({type(module).__name__}) is not a Vision Transformer that can be read: its "
            "blocks do not pass on tokens (B, N, D), or it returns no logits (B, C)."
        )
    return seen, output, {call.place for call in recorder.calls}


def _prefix(images: Tensor, tokens: int, name: str) -> int:
    height, width = images.shape[-2:]
    for prefix in range(min(_MOST_PREFIX, tokens)):
        try:
            rows, columns = infer_grid((height, width), tokens - prefix)
        except ModelError:
            continue
        if height % rows == 0 and width % columns == 0 and height // rows == width // columns:
            return prefix
    raise ModelError(
        f"{name} makes {tokens} tokens of a {images.shape[-1]}x{images.shape[-2]} input, which are "
        "no grid after a few prefix tokens; pass wrap(…, layout=TokenLayout(patch=…, prefix=…))."
    )


def _rows_read(output: Tensor, at: Tensor) -> list[int]:
    """Positions of `at` (1, N, D) on which the output depends."""
    (grad,) = torch.autograd.grad(output.square().sum(), at, retain_graph=True)
    return [int(row) for row in grad[0].abs().amax(-1).nonzero()[:, 0]]


def _averaged(
    module: nn.Module,
    name: str,
    images: Tensor,
    blocks: tuple[nn.Module, ...],
    layout: TokenLayout,
) -> tuple[Anatomy, TokenLayout]:
    """The anatomy of a head that averages: the place where its tokens matter equally."""
    for candidate in _after(module, blocks):
        anatomy = Anatomy("mean of tokens", blocks, pool=Pool(candidate))
        seen, output, _ = _watch(module, anatomy, images, name)
        pooled = seen.pooled
        if not isinstance(pooled, Tensor) or not pooled.requires_grad or pooled.ndim != 3:
            continue
        (grad,) = torch.autograd.grad(output.square().sum(), pooled)
        row = grad[0, -1]
        same = (grad[0] - row).abs().amax(-1) <= _SAME * row.abs().max()
        if bool(row.abs().max()) and bool(same[layout.prefix :].all()):
            return _with_pool(anatomy, layout, same, grad[0].abs().amax(-1) > 0)
    raise ModelError(
        f"{name} ({type(module).__name__}) reads its class from all tokens, but not as their "
        "average, so its readout cannot be made out."
    )


def _with_pool(
    anatomy: Anatomy, layout: TokenLayout, same: Tensor, used: Tensor
) -> tuple[Anatomy, TokenLayout]:
    prefix = layout.prefix
    whole = prefix > 0 and bool(same[:prefix].all())
    rows = () if whole else tuple(int(i) for i in used[:prefix].nonzero()[:, 0])
    words = "mean of all tokens" if whole else "mean of patch tokens"
    if rows:
        words = f"class token and {words}"
    pool = 0 if whole else prefix
    return (
        Anatomy(words, anatomy.blocks, pool=anatomy.pool),
        TokenLayout(layout.patch, prefix, rows, pool=pool, grid=layout.grid),
    )


def _after(module: nn.Module, blocks: tuple[nn.Module, ...]) -> Iterator[nn.Module]:
    """The last block, then the modules that may follow it."""
    inside = {id(part) for block in blocks for part in block.modules()}
    yield blocks[-1]
    for part in module.modules():
        if id(part) not in inside and not list(part.children()):
            yield part


def count_classes(module: nn.Module, images: Tensor) -> int:
    """How many logits a module returns."""
    return int(module(images).shape[-1])
