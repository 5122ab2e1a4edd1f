"""Pixel attributions written out with plain autograd and loops."""

from __future__ import annotations

import torch
from torch import Tensor

from gradtoken.attribution import make_method
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.record import record

CLASSES = [3, 7]


def maps_of(model: Model, images: Tensor, method: str, **options: object) -> Tensor:
    trace = record(model, images)
    return make_method(method, **options)(trace, resolve(CLASSES, trace.logits, model.labels))


def gradient(model: Model, image: Tensor, label: int) -> Tensor:
    image = image.clone().requires_grad_()
    return torch.autograd.grad(model.module(image[None])[0, label], image)[0]


def by_token(pixels: Tensor, how: str = "sum") -> Tensor:
    """(…, 64, 64) pooled to 8 x 8 tokens of 8 x 8 pixels, one at a time."""
    tokens = [
        pixels[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        for row in range(8)
        for column in range(8)
    ]
    return torch.stack([t.sum() if how == "sum" else t.mean() for t in tokens])


def assert_each(model: Model, images: Tensor, maps: Tensor, by_hand) -> None:
    for b, image in enumerate(images):
        for k, label in enumerate(CLASSES):
            expected = by_hand(image, label)
            scale = float(expected.abs().max())
            torch.testing.assert_close(maps[b, k], expected, rtol=1e-6, atol=1e-8 * scale)
