"""Logits of many changed images, which are made as they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.metrics.pixel_replacement import Predict

_CHUNK = 64
"""Images that go through the model at once."""


def logits_in_chunks(
    predict: Predict, images: Iterable[Float[Tensor, "channels height width"]]
) -> Float[Tensor, "images classes"]:
    """Logits of images, on the CPU in float64.

    Args:
        predict: the model.
        images: preprocessed, one after the other; at least one.
    """
    return torch.cat(
        [predict(torch.stack(chunk)).double().cpu() for chunk in _batched(images, _CHUNK)]
    )


def _batched(items: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Lists of `size` items, the last of what is left."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
