"""Modules that people write around Vision Transformers, and an independent map of each.

`by_gradient` is the first-order relevance by plain autograd and eager attention, without gradtoken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import gradtoken
from gradtoken.images.preprocess import Preprocess
from gradtoken.models import Model
from tests.models.by_hand import gradient_times_attention
from tests.models.zoo import seeded

SIDE = 64
A, B = 2, 7
"""Two of the ten classes."""


def pixels(image: object) -> Tensor:
    """Preprocessing to (3, 64, 64) in float64, whatever the image."""
    from torchvision.transforms.functional import pil_to_tensor, resize

    return pil_to_tensor(resize(image, [SIDE, SIDE])).double() / 255 - 0.5


PREPROCESS = Preprocess(pixels)


def vit(kind: type[VisionTransformer] = VisionTransformer, **options: object) -> nn.Module:
    """A seeded float64 ViT of 64 px, 4x4 tokens, 4 blocks of width 48 and 10 classes."""
    settings = {
        "img_size": SIDE,
        "patch_size": 16,
        "embed_dim": 48,
        "depth": 4,
        "num_heads": 3,
        "num_classes": 10,
        **options,
    }
    return seeded(lambda: kind(**settings))


def random_timm(name: str, **options: object) -> nn.Module:
    """A timm model with seeded random weights."""
    torch.manual_seed(0)
    return timm.create_model(name, **options).eval()


def images(count: int = 1, side: int = SIDE, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, channels, side, side, generator=generator).double()


def wrap(module: nn.Module, **options: object) -> Model:
    """The module with preprocessing to (3, 64, 64)."""
    return gradtoken.wrap(module, preprocess=PREPROCESS, **options)


def tokens_of(model: Model, image: Tensor, **options: object) -> Tensor:
    """(K, N) first-order relevance of classes A and B."""
    explanation = gradtoken.explain(model, image, [A, B], preset="faithful", **options)
    return explanation.tokens[0].flatten(1).double()


def by_gradient(
    forward: Callable[[Tensor], Tensor],
    image: Tensor,
    label: int,
    *,
    rows: Sequence[int],
    spatial: Sequence[int],
    calls: slice = slice(None),
) -> Tensor:
    """sum over attention calls, heads and rows of A * dy/dA at the spatial tokens, (N,)."""
    shares = gradient_times_attention(forward, image, label, 1.0)[calls]
    return sum(share[list(rows)].sum(0)[list(spatial)] for share in shares)


class MeanOfPatches(VisionTransformer):
    """A subclass whose head averages, whatever timm's own option says."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x)[:, 1:].mean(1))


class ClassAndMean(VisionTransformer):
    """A head on the class token beside the mean of the patches."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.head = nn.Linear(2 * self.embed_dim, self.num_classes)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(torch.cat([x[:, 0], x[:, 1:].mean(1)], -1))


class Wrapped(nn.Module):
    """A ViT inside a module of one's own."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.vit = vit(**options)

    def forward(self, x: Tensor) -> Tensor:
        return self.vit(x)

    def embedded(self, x: Tensor) -> Tensor:
        return self.vit.norm_pre(self.vit._pos_embed(self.vit.patch_embed(x)))

    def read(self, tokens: Tensor) -> Tensor:
        return self.vit.forward_head(self.vit.norm(tokens))


class BehindBatchNorm(Wrapped):
    """A ViT behind batch normalisation, whose statistics a forward in training mode changes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.vit(self.norm(x))


class LastLayers(Wrapped):
    """A linear head on the class tokens of the last blocks, as DINOv2's have; with `mean` also on
    the mean of the last block's patches."""

    def __init__(self, count: int = 3, *, mean: bool = False) -> None:
        super().__init__()
        self.count, self.mean = count, mean
        self.head = seeded(lambda: nn.Linear(48 * (count + mean), 10))

    def forward(self, x: Tensor) -> Tensor:
        actual = self.vit.get_intermediate_layers(
            x, n=self.count, return_prefix_tokens=True, norm=True
        )
        parts = [prefix[:, 0] for _, prefix in actual]
        if self.mean:
            parts.append(actual[-1][0].mean(1))
        return self.head(torch.cat(parts, -1))


class TwoLists(Wrapped):
    """One transformer whose blocks lie in two lists (block_chunks)."""

    def __init__(self) -> None:
        super().__init__()
        blocks = list(self.vit.blocks)
        self.vit.blocks = nn.Sequential()
        self.first, self.second = nn.ModuleList(blocks[:2]), nn.ModuleList(blocks[2:])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedded(x)
        for block in [*self.first, *self.second]:
            x = block(x)
        return self.read(x)


class Ensemble(nn.Module):
    """The mean of two models' logits."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        return (self.one(x) + self.other(x)) / 2


class FlipAverage(Wrapped):
    """Test-time augmentation: one model on an image and its mirror image."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.vit(x) + self.vit(x.flip(-1))) / 2


class SideBranch(Wrapped):
    """A convolution beside the transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.side = seeded(
            lambda: nn.Sequential(
                nn.Conv2d(3, 4, 5),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(4, 10),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.vit(x) + self.side(x)


class LongSkip(Wrapped):
    """A block that also gets what an early block made (U-ViT)."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedded(x)
        kept = []
        for index, block in enumerate(self.vit.blocks):
            x = block(x + kept[0] if index == 3 else x)
            kept.append(x)
        return self.read(x)


class MeanOfLayers(Wrapped):
    """The mean of the patches of several blocks."""

    def forward(self, x: Tensor) -> Tensor:
        actual = self.vit.get_intermediate_layers(x, n=3, norm=True)
        return self.vit.head(sum(tokens.mean(1) for tokens in actual))


class Normalised(Wrapped):
    """Logits are cosines of a normalised embedding with class vectors."""

    def __init__(self) -> None:
        super().__init__(num_classes=0)
        self.classes = nn.Parameter(
            torch.randn(10, 48, generator=torch.Generator().manual_seed(1)).double()
        )

    def forward(self, x: Tensor) -> Tensor:
        embedding = nn.functional.normalize(self.vit(x), dim=-1)
        return embedding @ nn.functional.normalize(self.classes, dim=-1).T


class FrozenBackbone(Wrapped):
    """A backbone that runs under torch.no_grad, and a head that does not."""

    def __init__(self) -> None:
        super().__init__(num_classes=0)
        self.head = seeded(lambda: nn.Linear(48, 10))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.vit(x)
        return self.head(features)


class BlockOfLists(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, sequences: list[Tensor]) -> list[Tensor]:
        return [self.block(tokens) for tokens in sequences]


class Lists(Wrapped):
    """Blocks that take and give lists of sequences, as the official DINOv3 code's do."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(BlockOfLists(block) for block in self.vit.blocks)
        self.vit.blocks = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        sequences = [self.embedded(x)]
        for block in self.blocks:
            sequences = block(sequences)
        return self.read(sequences[0])


class Pruned(Wrapped):
    """Half of the patches are dropped after the second block."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedded(x)
        for index, block in enumerate(self.vit.blocks):
            x = block(x)
            if index == 1:
                kept = x[:, 1:].norm(dim=-1).topk(8, dim=1).indices + 1
                x = torch.cat([x[:, :1], x.gather(1, kept[..., None].expand(-1, -1, 48))], 1)
        return self.read(x)


class Merged(Wrapped):
    """Pairs of patches are averaged after the second block."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedded(x)
        for index, block in enumerate(self.vit.blocks):
            x = block(x)
            if index == 1:
                x = torch.cat([x[:, :1], x[:, 1:].unflatten(1, (8, 2)).mean(2)], 1)
        return self.read(x)


class Checkpointed(Wrapped):
    """Gradient checkpointing that no flag turns off."""

    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        x = self.embedded(x)
        for block in self.vit.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.read(x)


class Ordered(Wrapped):
    """Tokens in another order: patches permuted, others wherever one likes.

    Args:
        order: for each token of the sequence, which of [class token, registers, patches] it is.
        registers: how many there are.
    """

    def __init__(self, order: Sequence[int], registers: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.order = list(order)
        self.registers = nn.Parameter(torch.randn(1, registers, 48, generator=generator).double())

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedded(x)
        x = torch.cat([x[:, :1], self.registers.expand(len(x), -1, -1), x[:, 1:]], 1)
        x = self.vit.norm(self.vit.blocks(x[:, self.order]))
        return self.vit.head(x[:, self.order.index(0)])
