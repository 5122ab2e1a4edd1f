"""A random map: what any method has to be better than."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import NO_GRADIENT, Method
from gradtoken.attribution.options import check_seed
from gradtoken.precision import wide
from gradtoken.targets import Targets
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class RandomMap(Method):
    """R_i uniform in 0 to 1: independent for each token, target and image.

    The generator of an image is seeded by the option and the values of the model's input, so that
    its maps do not depend on the batch or on global generators.

    Args:
        seed: of the noise.
    """

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "noise, the floor that every method has to be above"
    source: ClassVar[str] = "baseline"
    no_libra: ClassVar[str] = NO_GRADIENT

    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self)

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        shape = (targets.count, trace.spatial)
        maps = [
            torch.rand(shape, generator=self._generator(image), dtype=torch.float32)
            for image in trace.images
        ]
        return torch.stack(maps).to(wide(trace.logits))

    def needs_queries(self) -> bool:
        return False

    def _generator(self, image: Float[Tensor, "channels height width"]) -> torch.Generator:
        pixels = image.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
        digest = hashlib.sha256(self.seed.to_bytes(4, "little") + pixels).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
