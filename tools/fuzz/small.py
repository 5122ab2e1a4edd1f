"""A model small enough to be asked ten thousand times."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torchvision.transforms import v2

import gradtoken
from gradtoken.models import Model

ARCHITECTURE = {
    "img_size": 16,
    "patch_size": 8,
    "embed_dim": 8,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 5,
}
LABELS = ["cat", "dog, hound", "tiger cat", "pot plant", "dog"]


@cache
def module() -> VisionTransformer:
    """A seeded ViT of 2x2 tokens."""
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = VisionTransformer(**ARCHITECTURE)
        for parameter in found.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return found.eval()


@cache
def deep_model() -> Model:
    """A model of twelve channels, which takes arrays and tensors alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = VisionTransformer(**ARCHITECTURE, in_chans=12).eval()
    preprocess = gradtoken.Preprocess(v2.Resize((16, 16)), channels=12)
    return gradtoken.wrap(found, preprocess=preprocess, labels=LABELS)


@cache
def picture(kind: str, width: int = 12, height: int = 8) -> bytes:
    """A file of a noisy picture, the same in every process."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@cache
def model() -> Model:
    """The same, ready to be explained."""
    return gradtoken.wrap(module(), labels=LABELS)
