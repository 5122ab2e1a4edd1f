"""Forward passes of one image's variants with replaced pixels, each distinct variant once.

Perturbation, insertion and deletion of every method look at the same image with the pixels of some
map replaced. The groups of metrics say beforehand which variants they need, so that those of all
methods, directions and steps go through the model in full batches; variants that are equal, such as
the untouched and the wholly replaced image, go through it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.metrics.pixel_replacement import CHUNK, Predict, Replacement

_Key: TypeAlias = tuple[str, ...]


class Sweeps:
    """The logits of an image's variants, computed when the first of them is needed.

    Args:
        predict: logits of preprocessed images; a `Model` is one.
    """

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._waiting: dict[_Key, tuple[Replacement, int]] = {}
        self._known: dict[_Key, Float[Tensor, " classes"]] = {}

    def request(self, replacement: Replacement) -> None:
        """Put the variants of one image among those that run next.

        Args:
            replacement: of a single image.
        """
        for key, count in zip(_keys(replacement), replacement.counts, strict=True):
            if key not in self._known:
                self._waiting.setdefault(key, (replacement, count))

    def logits(self, replacement: Replacement) -> Float[Tensor, "1 counts classes"]:
        """Logits at every count, as `Replacement.logits` gives them.

        All variants that were requested so far run with those of the replacement.

        Args:
            replacement: of a single image.
        """
        self.request(replacement)
        keys = list(_keys(replacement))
        if not all(key in self._known for key in keys):
            self._run()
        return torch.stack([self._known[key] for key in keys])[None]

    def _run(self) -> None:
        while self._waiting:
            keys = list(self._waiting)[:CHUNK]
            images = [self._waiting[key][0].at([0], [self._waiting[key][1]]) for key in keys]
            logits = self._predict(torch.cat(images)).double().cpu()
            self._known.update(zip(keys, logits, strict=True))
            for key in keys:
                del self._waiting[key]


def _keys(replacement: Replacement) -> Iterator[_Key]:
    """What tells each variant from others: both images, and which pixels are of which."""
    start, end = _digest(replacement.images), _digest(replacement.others)
    pixels = replacement.places.shape[1]
    for count in replacement.counts:
        if count in (0, pixels):
            yield (start if count == 0 else end,)
        else:
            yield start, end, _digest(replacement.places < count)


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()
