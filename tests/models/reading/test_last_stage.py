"""Models followed after their last stage: where their tokens lie, in how many forwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.reading.cells import CERTAIN, cell_amplitudes, cells_alike
from tests.models.zoo import TIMM, seeded

SHAPES = [(6, 6), (7, 7), (8, 8), (7, 10), (12, 12)]


def windows(order: Tensor, side: int) -> Tensor:
    """The cells of one window after another."""
    rows, columns = order.shape
    split = order.view(rows // side, side, columns // side, side)
    return split.permute(0, 2, 1, 3).reshape(rows, columns)


def wrong_orders(shape: tuple[int, int]) -> dict[str, Tensor]:
    """The cells' numbers as models lay them out that a row-by-row layout does not fit."""
    order = torch.arange(shape[0] * shape[1]).view(shape)
    orders = {
        "rows flipped": order.flip(0),
        "columns flipped": order.flip(1),
        "turned round": order.flip(0, 1),
        "by columns": order.T.reshape(shape),
        "half a side away": order.roll((shape[0] // 2, shape[1] // 2), (0, 1)),
        "a row down": order.roll(1, 0),
        "a row up": order.roll(-1, 0),
        "a column right": order.roll(1, 1),
        "a column left": order.roll(-1, 1),
        "a token later": order.flatten().roll(1).view(shape),
        "a token earlier": order.flatten().roll(-1).view(shape),
    }
    for side in (2, 3, 4):
        whole = shape[0] % side == shape[1] % side == 0
        if whole and shape != (side, side):
            orders[f"windows of {side}"] = windows(order, side)
    return orders


@pytest.mark.parametrize("shape", SHAPES)
def test_cells_alike_tells_orders_apart(shape: tuple[int, int]) -> None:
    """Tokens that change as the pixels of their own cells do, averaged by hand."""
    size = (shape[0] * 8 + 3, shape[1] * 8 + 5)
    grid = PatchGrid(shape, size, shape[0] * shape[1])
    variance = cell_amplitudes(grid).square()
    changes = torch.stack(
        [
            part.mean()
            for row in variance.tensor_split(shape[0])
            for part in row.tensor_split(shape[1], 1)
        ]
    )
    assert variance.min() > 0
    assert cells_alike(grid, changes) > 0.9
    for name, order in wrong_orders(shape).items():
        assert cells_alike(grid, changes[order.flatten()]) < 0.55 < CERTAIN, name


class _Reordered(nn.Module):
    """A norm that puts tokens (B, H, W, D) into another order."""

    def __init__(self, norm: nn.Module, order: Tensor) -> None:
        super().__init__()
        self.norm, self.order = norm, order

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm(tokens)
        return tokens.flatten(1, 2)[:, self.order.flatten()].view(tokens.shape)


def swin() -> nn.Module:
    """A Swin of 4x4 tokens, too few for one changed image to tell their order."""
    return seeded(TIMM["swin_tiny_patch4_window7_224"].build)


def hiera() -> nn.Module:
    """A Hiera of 7x7 tokens."""
    options = {"embed_dim": 24, "stages": (1, 1, 2, 1), "num_classes": 5}
    return seeded(lambda: timm.create_model("hiera_tiny_224", **options))


def forwards_of_wrap(module: nn.Module) -> int:
    runs = []
    hook = module.register_forward_pre_hook(lambda *_: runs.append(1))
    gradtoken.wrap(module)
    hook.remove()
    return len(runs)


@pytest.mark.parametrize("build", [TIMM["swinv2_cr_tiny_224"].build, hiera])
def test_wrap_takes_two_forwards(build: Callable[[], nn.Module]) -> None:
    assert forwards_of_wrap(seeded(build)) == 2


def test_wrap_takes_three_forwards_for_few_tokens() -> None:
    assert forwards_of_wrap(swin()) == 3


def test_wrap_takes_four_forwards_where_tokens_change_together() -> None:
    """Ramps still tell where tokens lie that depend on the whole image most."""
    small = {"depths": (1,) * 4, "embed_dim": (32, 32, 64, 96), "stem_width": 16}
    module = seeded(lambda: timm.create_model("maxvit_tiny_tf_224", num_classes=5, **small))
    assert forwards_of_wrap(module) == 4


@pytest.mark.parametrize("name", wrong_orders((4, 4)))
def test_wrap_rejects_few_tokens_in_other_order(name: str) -> None:
    module = swin()
    module.norm = _Reordered(module.norm, wrong_orders((4, 4))[name])
    with pytest.raises(ModelError, match="do not lie on the image as a row-by-row 4x4 grid"):
        gradtoken.wrap(module)


@pytest.mark.parametrize("name", wrong_orders((7, 7)))
def test_wrap_rejects_many_tokens_in_other_order(name: str) -> None:
    module = seeded(TIMM["swinv2_cr_tiny_224"].build)
    reordered = _Reordered(nn.Identity(), wrong_orders((7, 7))[name])
    plain = module.forward_features

    def forward_features(x: Tensor) -> Tensor:
        return reordered(plain(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    module.forward_features = forward_features
    with pytest.raises(ModelError, match="do not lie on the image as a row-by-row 7x7 grid"):
        gradtoken.wrap(module)


def brighter(logits: Tensor, x: Tensor) -> Tensor:
    return logits + x.mean((1, 2, 3))[:, None]


def one_pixel(logits: Tensor, x: Tensor) -> Tensor:
    return logits + 0.1 * x[:, :1, 0, 0]


@pytest.mark.parametrize("add", [brighter, one_pixel])
def test_wrap_rejects_way_around_last_stage(add: Callable[[Tensor, Tensor], Tensor]) -> None:
    module = swin()
    plain = module.forward
    module.forward = lambda x: add(plain(x), x)
    with pytest.raises(ModelError, match="by a way around the tokens of its last stage"):
        gradtoken.wrap(module)


def test_wrap_rejects_tokens_averaged_twice() -> None:
    module = swin()
    plain = module.forward
    module.forward = lambda x: plain(x) + plain(x.flip(-1))
    with pytest.raises(ModelError, match="averages its tokens 2 times in 1 forwards"):
        gradtoken.wrap(module)
