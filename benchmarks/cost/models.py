"""The models that are measured: full size, random weights."""

from __future__ import annotations

import timm
import torch
from torch import Tensor

import gradtoken
from gradtoken.models import Model

SIZES = {"ViT-Ti/16": "vit_tiny_patch16_224", "ViT-S/16": "vit_small_patch16_224"}
SIZES["ViT-B/16"] = "vit_base_patch16_224"


def build(name: str, device: torch.device, dtype: torch.dtype, **options: object) -> Model:
    """A seeded model of timm."""
    torch.manual_seed(0)
    module = timm.create_model(name, **options)
    return gradtoken.wrap(module.to(device, dtype))


def noise(model: Model, batch: int, side: int = 224) -> Tensor:
    """A seeded batch (B, 3, side, side) on the model's device."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, generator=generator)
    return images.to(model.device, model.dtype)
