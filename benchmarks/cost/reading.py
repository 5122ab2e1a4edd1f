"""What it costs to verify how a model is read: once for each model, beside one forward of it."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from typing import Any

import timm
import torch
from benchmarks.cost.methods import forward
from benchmarks.cost.models import noise
from benchmarks.cost.timing import once
from torch import nn

import gradtoken

MODELS = {
    "ViT-B/16, class token": "vit_base_patch16_224",
    "ViT-S/14 with registers, 518 pixels": "vit_small_patch14_reg4_dinov2",
    "SigLIP ViT-B/16, attention pool": "vit_base_patch16_siglip_224",
    "DINOv3 ViT-S/16, mean of patches": "vit_small_patch16_dinov3",
    "XCiT nano, convolutional stem": "xcit_nano_12_p16_224",
    "XCiT small, convolutional stem": "xcit_small_12_p16_224",
    "ResNet + ViT-Ti/16": "vit_tiny_r_s16_p8_224",
    "Swin-T, last stage": "swin_tiny_patch4_window7_224",
    "Hiera-T, last stage": "hiera_tiny_224",
    "MaxViT-T, last stage": "maxvit_tiny_tf_224",
}


def measure(
    device: torch.device, dtype: torch.dtype, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each model: the time of `wrap` in forwards of one image."""
    rows = []
    for title, name in MODELS.items():
        say(f"reading {title}")
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=1000).eval().to(device, dtype)
        rows.append({"model": title, "forwards of one image": _ratio(module, rounds)})
    return rows


def _ratio(module: nn.Module, rounds: int) -> float:
    """The median over rounds of the time of reading a new copy, by that of a forward beside it."""
    model = gradtoken.wrap(module)
    _, height, width = model.preprocess.sample().shape
    image = noise(model, 1, height)[..., :width]
    ratios = []
    with torch.no_grad():
        forward(model, image)
        for _ in range(max(rounds, 5)):
            fresh = copy.deepcopy(module)
            plain = once(lambda: forward(model, image), model.device)
            reading = once(lambda fresh=fresh: gradtoken.wrap(fresh), model.device)
            ratios.append(reading / plain)
    return round(statistics.median(ratios), 2)
