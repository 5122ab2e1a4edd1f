"""Models, tensors and arrays of any number of channels."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

import gradtoken
from gradtoken import Preprocess
from gradtoken.models import Model
from tests.conftest import tiny_vit

SIZE = (64, 64)


def channel_transform(channels: int, mean: float = 0.5, std: float = 0.25) -> v2.Compose:
    """Resize and normalise a tensor (C, H, W)."""
    return v2.Compose([v2.Resize(SIZE), v2.Normalize([mean] * channels, [std] * channels)])


def wrapped(channels: int) -> Model:
    """A tiny ViT of C channels with a preprocess."""
    module = tiny_vit(in_chans=channels)
    if channels in (1, 3):
        return gradtoken.wrap(module)
    preprocess = Preprocess(
        channel_transform(channels), mean=[0.5] * channels, std=[0.25] * channels
    )
    return gradtoken.wrap(module, preprocess=preprocess)


def noise(channels: int, count: int = 2) -> Tensor:
    """A seeded batch (B, C, H, W)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, *SIZE, generator=generator).double()


def array(channels: int, size: tuple[int, int] = (60, 90)) -> np.ndarray:
    """Smooth values in 0..1 (H, W, C)."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, channels, 4, 6), dtype=np.float32))
    large = nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return np.ascontiguousarray(large[0].permute(1, 2, 0).numpy())


def rgb(size: tuple[int, int] = (90, 60)) -> Image.Image:
    """A smooth image of `size` (width, height)."""
    return Image.fromarray((array(3, size[::-1]) * 255).astype(np.uint8))
