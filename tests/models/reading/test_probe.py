"""Which token is which patch, and which pixels it is made of, is seen by changing pixels."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models import Model
from tests.models import own
from tests.models.own import A, B, images, vit, wrap
from tests.models.zoo import seeded


def grid_of(model: Model) -> PatchGrid:
    (located,) = model.reading.grids.values()
    return located.grid


def columns_first() -> list[int]:
    return [0, *(1 + row * 4 + column for column in range(4) for row in range(4))]


def shuffled(registers: int) -> list[int]:
    generator = torch.Generator().manual_seed(3)
    return torch.randperm(17 + registers, generator=generator).tolist()


ORDERS = {
    "class token last": ([*range(1, 17), 0], 0),
    "registers after the patches": ([0, *range(5, 21), *range(1, 5)], 4),
    "registers among the patches": ([0, *range(5, 10), *range(1, 5), *range(10, 21)], 4),
    "patches by columns": (columns_first(), 0),
    "patches backwards": ([0, *range(16, 0, -1)], 0),
    "any order at all": (shuffled(3), 3),
}
METHODS = {
    "gradtoken": {},
    "raw-attention": {},
    "rollout": {},
    "gae": {},
    "grad-cam": {},
    "legrad": {},
    "cdam": {},
    "attcat": {},
    "tokentm": {},
    "tam": {"steps": 2},
    "beyond-intuition": {"steps": 2},
    "transformer-attribution": {},
    "attnlrp": {},
    "vit-cx": {"distance": 0.5},
}


@pytest.mark.parametrize("name", ORDERS)
def test_grid_of_any_token_order(name: str) -> None:
    """A transformer does not know the order of its tokens: maps are those of the plain order."""
    order, registers = ORDERS[name]
    model = wrap(own.Ordered(order, registers).eval())
    plain = wrap(own.Ordered(range(17 + registers), registers).eval())
    torch.testing.assert_close(model(images(2)), plain(images(2)))
    assert model.layout.prefix == 1 + registers
    expected = tuple(order.index(1 + registers + patch) for patch in range(16))
    assert grid_of(model).positions == expected
    for method, options in METHODS.items():
        actual, right = (
            gradtoken.explain(one, images(2), [A, B], method=method, **options).tokens
            for one in (model, plain)
        )
        torch.testing.assert_close(actual, right, rtol=1e-4, atol=1e-7, msg=method)


@pytest.mark.parametrize("spread", [None, "near", "token", "attention"])
def test_spread_follows_image_not_sequence(spread: str | None) -> None:
    order, registers = ORDERS["any order at all"]
    actual, right = (
        gradtoken.explain(wrap(own.Ordered(o, registers).eval()), images(2), [A, B], spread=spread)
        for o in (order, range(17 + registers))
    )
    torch.testing.assert_close(actual.tokens, right.tokens, rtol=1e-5, atol=1e-8)


def test_map_changes_at_changed_patch() -> None:
    """The pixels of patch (2, 1) are changed, and its own value in the map changes most."""
    order, registers = ORDERS["any order at all"]
    model = wrap(own.Ordered(order, registers).eval())
    changed = images().clone()
    changed[..., 32:48, 16:32] += 3
    before, after = (
        gradtoken.explain(model, x, A, method="occlusion").tokens[0, 0] for x in (images(), changed)
    )
    assert divmod(int((after - before).abs().argmax()), 4) == (2, 1)


def rest(side: int) -> nn.Module:
    """A ViT of 4x4 patches of 16 pixels on an input whose last pixels belong to no patch."""

    class Rest(own.Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            return self.vit(x[..., :64, :64])

    return Rest().eval() if side else vit()


def sized(side: int) -> object:
    def pixels(image: object) -> Tensor:
        return F.interpolate(own.pixels(image)[None], (side, side), mode="nearest")[0]

    return pixels


def test_grid_without_edge_pixels() -> None:
    model = gradtoken.wrap(rest(79), preprocess=sized(79))
    grid = grid_of(model)
    assert (grid.shape, tuple(grid.cells)) == ((4, 4), (0, 0, 64, 64))
    x = images(side=79)
    actual = gradtoken.explain(model, x, A)
    relevance = actual.relevance[0, 0]
    assert relevance.shape == (79, 79)
    assert not relevance[64:].any()
    assert not relevance[:, 64:].any()
    expected = gradtoken.explain(wrap(vit()), x[..., :64, :64], A)
    torch.testing.assert_close(relevance[:64, :64], expected.relevance[0, 0])
    for method in ("occlusion", "saliency", "input-x-gradient"):
        seen, expected = (
            gradtoken.explain(one, pixels, A, method=method).tokens
            for one, pixels in ((model, x), (wrap(vit()), x[..., :64, :64]))
        )
        torch.testing.assert_close(seen, expected, msg=method)


def test_map_on_image_covers_patches() -> None:
    """An image of 158 pixels, brought to 79: the last 30 of each side belong to no token."""
    from PIL import Image

    model = gradtoken.wrap(rest(79), preprocess=sized_by_resizing(79))
    actual = gradtoken.explain(model, Image.effect_noise((158, 158), 60), A)
    box = actual.boxes[0]
    assert list(box) == pytest.approx([0, 0, 128, 128], abs=0.5)
    assert not actual.relevance[0, 0, 129:].any()


def sized_by_resizing(side: int) -> object:
    from torchvision.transforms.functional import pil_to_tensor, resize

    def pixels(image: object) -> Tensor:
        return pil_to_tensor(resize(image, [side, side])).double() / 255 - 0.5

    return pixels


class Stem(own.Wrapped):
    """Patches by a stem of one's own in place of a plain patch embedding."""

    def __init__(self, stem: nn.Module, grid: int) -> None:
        super().__init__(img_size=16 * grid)
        self.stem = stem

    def forward(self, x: Tensor) -> Tensor:
        patches = self.stem(x).flatten(2).transpose(1, 2)
        return self.read(self.vit.blocks(self.vit._pos_embed(patches)))


def overlapping() -> nn.Module:
    """Patches of 16 pixels every 10: six of them on 66 pixels, the first around pixel 8."""
    return Stem(seeded(lambda: nn.Conv2d(3, 48, 16, 10)), 6).eval()


def convolutions() -> nn.Module:
    """Three convolutions of stride 2: token i has its centre at 8 i + 0.5."""
    layers = [
        nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GELU()) for a, b in [(3, 8), (8, 16), (16, 48)]
    ]
    return Stem(seeded(lambda: nn.Sequential(*layers)), 8).eval()


@pytest.mark.parametrize(
    ("build", "side", "shape", "first", "step", "within"),
    [
        (overlapping, 66, (6, 6), 8.0, 10.0, 0.01),
        (convolutions, 64, (8, 8), 0.5, 8.0, 0.01),
    ],
)
def test_grid_of_overlapping_tokens(
    build: object, side: int, shape: tuple[int, int], first: float, step: float, within: float
) -> None:
    grid = grid_of(gradtoken.wrap(build(), preprocess=sized(side)))
    assert grid.shape == shape
    left, top, right, bottom = grid.cells
    for start, end in ((left, right), (top, bottom)):
        assert start + step / 2 == pytest.approx(first, abs=within * step)
        assert (end - start) / shape[0] == pytest.approx(step, abs=within * step)


def test_grid_measured_without_gradients() -> None:
    """Without gradients in the embedding the same places are found, to a twentieth of a patch."""

    class NoGradient(own.Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.embedded(x)
            return self.read(self.vit.blocks(x))

    model = wrap(NoGradient().eval())
    (actual,) = model.reading.grids.values()
    assert actual.how == "measured"
    assert actual.grid.shape == (4, 4)
    cells = actual.grid.cells or (0, 0, 64, 64)
    assert cells == pytest.approx((0, 0, 64, 64), abs=0.8)


def test_grid_of_model_that_resizes_input() -> None:
    class Resizing(own.Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            return self.vit(F.interpolate(x, (64, 64), mode="bilinear", antialias=True))

    grid = grid_of(gradtoken.wrap(Resizing().eval(), preprocess=sized(96)))
    assert grid.shape == (4, 4)
    assert (grid.cells or (0, 0, 96, 96)) == pytest.approx((0, 0, 96, 96), abs=1.0)


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "vitamin_small_224"])
def test_grid_of_hybrid(name: str) -> None:
    """Convolutional stages before the transformer: the grid is found, its rows run downwards."""
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=5, img_size=224).eval()
    model = gradtoken.wrap(module)
    grid = grid_of(model)
    side = {"vit_tiny_r_s16_p8_224": 7, "vitamin_small_224": 14}[name]
    assert grid.shape == (side, side)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert gradtoken.explain(model, x, 1).tokens.shape == (1, 1, side, side)


def test_grid_of_deep_hybrid() -> None:
    """Through fifty layers the centres scatter too far for a fit, but agree with timm's grid."""
    module = own.random_timm(
        "vit_base_r50_s16_224", num_classes=5, img_size=128, depth=2, embed_dim=48, num_heads=3
    )
    model = gradtoken.wrap(module)
    (located,) = model.reading.grids.values()
    assert (located.how, located.grid.shape, model.layout.patch) == ("confirmed", (8, 8), (16, 16))
    assert located.value > 0.98


def test_wrap_rejects_tokens_without_grid() -> None:
    class Rows(own.Wrapped):
        """Patches of the upper half only beside two large ones of the lower half."""

        def forward(self, x: Tensor) -> Tensor:
            x = self.embedded(x)
            lower = x[:, 9:].unflatten(1, (2, 4)).mean(2)
            return self.read(self.vit.blocks(torch.cat([x[:, :9], lower], 1)))

    with pytest.raises(ModelError, match="make no regular grid of patches"):
        wrap(Rows().eval())


def test_grid_of_other_sizes_is_located_once() -> None:
    module = vit(dynamic_img_size=True)
    model = wrap(module)
    assert set(model.reading.grids) == {(3, 64, 64)}
    x = torch.randn(1, 3, 96, 80, generator=torch.Generator().manual_seed(0)).double()
    assert gradtoken.explain(model, x, A).tokens.shape == (1, 1, 6, 5)
    assert set(model.reading.grids) == {(3, 64, 64), (3, 96, 80)}


class Shuffled(own.Wrapped):
    """Tokens in random order, or sorted by their size; what is read does not depend on it."""

    by_size = False

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embedded(x)
        sizes = tokens[:, 1:].norm(dim=-1) if self.by_size else torch.rand(len(x), 16)
        order = sizes.argsort(1)[..., None].expand(-1, -1, 48)
        tokens = torch.cat([tokens[:, :1], tokens[:, 1:].gather(1, order)], 1)
        return self.read(self.vit.blocks(tokens))


@pytest.mark.parametrize("by_size", [False, True])
def test_wrap_rejects_varying_token_order(by_size: bool) -> None:
    module = Shuffled().eval()
    module.by_size = by_size
    with pytest.raises(ModelError, match="order of the tokens of Shuffled is drawn at random or"):
        wrap(module)


def test_wrap_rejects_masked_autoencoder() -> None:
    from transformers import ViTMAEConfig, ViTMAEModel

    class FineTuned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = ViTMAEConfig(
                hidden_size=48,
                num_hidden_layers=2,
                num_attention_heads=3,
                intermediate_size=96,
                image_size=64,
                patch_size=16,
                mask_ratio=0.0,
            )
            self.mae, self.head = ViTMAEModel(config), torch.nn.Linear(48, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.mae(x).last_hidden_state[:, 0])

    with pytest.raises(ModelError, match="order of the tokens of FineTuned is drawn at random"):
        wrap(FineTuned().eval().double())
