"""Blocks that mix, reorder or replace their tokens are read rightly or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.images.preprocess import Preprocess
from tests.models.own import Wrapped, by_gradient, images, pixels, vit, wrap
from tests.models.zoo import seeded

PATCHES = range(1, 17)


class Around(nn.Module):
    """A block around one of timm's."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block


class Blocks(Wrapped):
    """A ViT whose blocks are exchanged."""

    def __init__(self, kind: type[Around]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(kind(block) for block in self.vit.blocks).double()
        self.vit.blocks = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embedded(x)
        for block in self.blocks:
            tokens = self.call(block, tokens)
        return self.read(tokens)

    def call(self, block: nn.Module, tokens: Tensor) -> Tensor:
        return block(tokens)


class ByKeyword(Around):
    def forward(self, *, mask: object = None, hidden: Tensor) -> Tensor:
        return self.block(hidden)


class CalledByKeyword(Blocks):
    def call(self, block: nn.Module, tokens: Tensor) -> Tensor:
        return block(mask=None, hidden=tokens)


class Biased(Around):
    def forward(self, bias: Tensor, hidden: Tensor) -> Tensor:
        return self.block(hidden + bias)


class BiasFirst(Blocks):
    def call(self, block: nn.Module, tokens: Tensor) -> Tensor:
        return block(torch.ones(1, 17, 48, dtype=torch.float64), tokens)


class Conditioned(Around):
    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.block(tokens + condition[:, None])


class OnTheImage(Blocks):
    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embedded(x)
        condition = tokens[:, 1:].mean(1)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.read(tokens)


class Flipped(Around):
    """Attends over the tokens in reverse, and puts what comes of it back."""

    def forward(self, tokens: Tensor) -> Tensor:
        attended = self.block.attn(self.block.norm1(tokens).flip(1)).flip(1)
        tokens = tokens + attended
        return tokens + self.block.mlp(self.block.norm2(tokens))


class Shifted(Around):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(tokens + F.pad(tokens[:, :-1], (0, 0, 1, 0)) / 2)


class Convolved(Around):
    """A convolution over the grid of patches after attention, which few tokens cannot pass."""

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.block(tokens)
        patches = tokens[:, 1:].unflatten(1, (4, 4))
        patches = patches - patches.mean(2, keepdim=True) / 2
        return torch.cat([tokens[:, :1], patches.flatten(1, 2)], 1)


class Slots(Around):
    """Attends to learned slots in place of tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.block.norm1(tokens)
        slots = torch.ones_like(normed).cumsum(1).sin()
        query = normed.unflatten(-1, (3, 16)).transpose(1, 2)
        memory = slots.unflatten(-1, (3, 16)).transpose(1, 2)
        read = F.scaled_dot_product_attention(query, memory, memory)
        return self.block(tokens) + read.transpose(1, 2).flatten(2)


class Folded(Around):
    """Heads among the images."""

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.block.norm1(tokens).unflatten(-1, (3, 16)).transpose(1, 2)
        heads = heads.flatten(0, 1)[:, None]
        read = F.scaled_dot_product_attention(heads, heads, heads)
        return tokens + read[:, 0].unflatten(0, (-1, 3)).transpose(1, 2).flatten(2)


class ThreeDimensional(Around):
    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.block.norm1(tokens).unflatten(-1, (3, 16)).transpose(1, 2).flatten(0, 1)
        read = F.scaled_dot_product_attention(heads, heads, heads)
        return tokens + read.unflatten(0, (-1, 3)).transpose(1, 2).flatten(2)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "conditioned on the image": (
        lambda: OnTheImage(Conditioned),
        "block 0 of OnTheImage gets something of the image beside its tokens",
    ),
    "attention in reverse": (lambda: Blocks(Flipped), "attends to is not its own tokens"),
    "token shift": (lambda: Blocks(Shifted), "attends to is not its own tokens"),
    "memory": (lambda: Blocks(Slots), "attends to is not its own tokens"),
    "convolution": (lambda: Blocks(Convolved), "block 0 of Blocks mixes tokens in another way"),
    "heads among images": (lambda: Blocks(Folded), "heads or tokens folded into the images"),
    "three dimensions": (lambda: Blocks(ThreeDimensional), "on tensors of 3 dimensions"),
    "a bias before the tokens": (lambda: BiasFirst(Biased), "no regular grid of patches"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrap_rejects_blocks_that_mix_otherwise(name: str) -> None:
    build, words = REFUSED[name]
    with pytest.raises(ModelError, match=words):
        wrap(build().eval())


def test_explain_blocks_called_by_keyword() -> None:
    module = CalledByKeyword(ByKeyword).eval()
    model = wrap(module)
    expected = by_gradient(module, images(), 2, rows=[0], spatial=PATCHES)
    actual = gradtoken.explain(model, images(), 2, preset="faithful", gradient="full").tokens
    torch.testing.assert_close(actual[0, 0].flatten().double(), expected, rtol=1e-5, atol=1e-7)
    for method in ("gae", "legrad"):
        plain = vit()
        plain.load_state_dict({**module.vit.state_dict(), **_blocks_of(module)})
        alike = gradtoken.explain(gradtoken.wrap(plain), images(), 2, method=method).tokens
        same = gradtoken.explain(model, images(), 2, method=method).tokens
        torch.testing.assert_close(same, alike)


def _blocks_of(module: Blocks) -> dict[str, Tensor]:
    state = module.blocks.state_dict()
    return {f"blocks.{key.replace('.block.', '.', 1)}": value for key, value in state.items()}


class Adapted(Block):
    """A block with an adapter, of another class than the rest."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self.adapter = nn.Linear(48, 48)

    def forward(self, tokens: Tensor, **options: object) -> Tensor:
        tokens = super().forward(tokens)
        return tokens + self.adapter(tokens)


@pytest.mark.parametrize("adapted", [[2, 3], [0], [1, 2, 3], [0, 2]])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_explain_blocks_of_two_classes(adapted: list[int], pool: str) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = vit(global_pool=pool)
            for index in adapted:
                self.vit.blocks[index] = seeded(lambda: Adapted(48, 3, qkv_bias=True))

        def forward(self, x: Tensor) -> Tensor:
            return self.vit(x)

    module = Own().eval()
    model = wrap(module)
    assert len(model.anatomy.blocks) == 4
    if pool == "token":
        expected = by_gradient(module, images(), 2, rows=[0], spatial=PATCHES)
        actual = gradtoken.explain(model, images(), 2, preset="faithful", gradient="full").tokens
        torch.testing.assert_close(actual[0, 0].flatten().double(), expected, rtol=1e-5, atol=1e-7)


class Rotary(Around):
    """Queries and keys are turned by their place in the whole sequence; small layer scales."""

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.block.attn.qkv(self.block.norm1(tokens)).unflatten(-1, (3, 3, 16))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        place = torch.arange(tokens.shape[1])[:, None] / 10.0 ** torch.arange(8)
        turn = torch.polar(torch.ones_like(place), place)
        query, key = (
            torch.view_as_real(torch.view_as_complex(one.unflatten(-1, (8, 2)).contiguous()) * turn)
            for one in (query, key)
        )
        read = F.scaled_dot_product_attention(query.flatten(-2), key.flatten(-2), value)
        tokens = tokens + 1e-4 * self.block.attn.proj(read.transpose(1, 2).flatten(2))
        return tokens + 1e-4 * self.block.mlp(self.block.norm2(tokens))


class RotaryClassTokenLast(Blocks):
    def embedded(self, x: Tensor) -> Tensor:
        tokens = super().embedded(x)
        return torch.cat([tokens[:, 1:], tokens[:, :1]], 1)

    def read(self, tokens: Tensor) -> Tensor:
        return self.vit.head(self.vit.norm(tokens)[:, -1])


def test_wrap_rejects_mixed_keys_under_small_layer_scale() -> None:
    """Alone, the class token would be turned as the first of the sequence, to little effect on
    itself and to all effect on the map."""
    module = RotaryClassTokenLast(Rotary).eval().float()
    model = gradtoken.wrap(module, preprocess=Preprocess(lambda image: pixels(image).float()))
    with pytest.raises(ModelError, match=r'own stream does not lead where .*gradient="full"'):
        gradtoken.explain(model, images().float(), 2)
    expected = by_gradient(module, images().float(), 2, rows=[16], spatial=range(16))
    actual = gradtoken.explain(
        model, images().float(), 2, preset="faithful", gradient="full"
    ).tokens
    torch.testing.assert_close(actual[0, 0].flatten(), expected.float(), rtol=1e-3, atol=1e-7)
