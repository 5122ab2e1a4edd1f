"""Images of noise with two objects, and methods that fail on chosen images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gradtoken.attribution import Method
from gradtoken.datasets import Sample
from gradtoken.errors import MethodError
from gradtoken.targets import Targets
from gradtoken.trace.trace import Trace

SIDE = 64


def sample(name: str, seed: int, **known: object) -> Sample:
    """An image of noise with two objects, named as `gradtoken.wrap` names classes."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, 12:34, 12:30], masks[1, 40:, 32:] = True, True
    settings = {"names": ("class 3", "class 7"), "masks": masks, **known}
    return Sample(name, Image.fromarray(pixels), **settings)


@dataclass(frozen=True, kw_only=True)
class Fixed(Method):
    """The same map for each target: the patch `at` has the relevance `value`, others 0."""

    name: ClassVar[str] = "fixed"
    summary: ClassVar[str] = "one patch"
    source: ClassVar[str] = "a test"

    at: int = 0
    value: float = 1.0

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        maps = torch.zeros(len(trace.images), targets.count, trace.spatial)
        maps[..., self.at] = self.value
        return maps


@dataclass(frozen=True, kw_only=True)
class Picky(Fixed):
    """Fails on images whose first value, as the model gets it, is below a number."""

    name: ClassVar[str] = "picky"

    below: float = 0.0

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        first = float(trace.images[0, 0, 0, 0])
        if first < self.below:
            raise MethodError(f"picky does not like {first:.3f}.")
        return super().__call__(trace, targets)
