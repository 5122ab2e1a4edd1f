"""The base of attributions to pixels: scores as functions of images, and pooling to tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import Method
from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.attribution.widened import widened_if_narrow
from gradtoken.errors import NotSupportedError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.precision import wide
from gradtoken.targets import Targets
from gradtoken.trace.autograd import gradients_enabled
from gradtoken.trace.libra import run_with_gradient, scoring
from gradtoken.trace.trace import Trace

Score: TypeAlias = Callable[
    [Float[Tensor, "images channels height width"]], Float[Tensor, " images"]
]
"""A target's score y as a function of images."""

Image: TypeAlias = Float[Tensor, "1 channels height width"]


class PixelMethod(Method):
    """A method that attributes a score to pixels, through captum, image by image."""

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        require_captum()
        by_gradient = isinstance(self, PixelGradient)
        if by_gradient and not all(t.reading.differentiable for t in trace.backbones):
            raise NotSupportedError(
                f"needs the gradient at the pixels, and {trace.model.spec} turns "
                "gradients off for its embedding or blocks (torch.no_grad, or detached tokens); "
                "use gradtoken or occlusion."
            )
        maps = []
        with gradients_enabled(trace.model), widened_if_narrow(trace.model):
            for b in range(len(trace.images)):
                image = wide(trace.images[b : b + 1].clone())
                for k in range(targets.count):
                    score = score_of(trace, targets, b, k, libra=self._libra())
                    pixels = self._attribute(score, image, trace)
                    maps.append(self._pooled(wide(pixels.detach()), trace.patch_grid))
        return torch.stack(maps).unflatten(0, (-1, targets.count))

    def _libra(self) -> bool:
        """Whether the gradients are LibraGrad's."""
        return False

    @abstractmethod
    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        """The attribution of a score to an image's pixels and channels."""

    def _pooled(self, pixels: Image, grid: PatchGrid) -> Float[Tensor, " patches"]:
        """The sum over each token's pixels and channels."""
        return grid.pool(pixels.sum(1)).flatten() * grid.area()


class PixelGradient(PixelMethod, GradientMethod):
    """A method that takes the gradient at the pixels."""

    def _libra(self) -> bool:
        return self.libra


def score_of(trace: Trace, targets: Targets, image: int, k: int, *, libra: bool = False) -> Score:
    """The score of target k of an image, as a function of other images in its place.

    With `libra` its gradient is LibraGrad's.
    """
    target, model = targets.rows[image][k], trace.model

    def score(
        images: Float[Tensor, "images channels height width"],
    ) -> Float[Tensor, " images"]:
        logits = wide(run_with_gradient(model, images.to(model.dtype), libra=libra))
        with scoring(libra=libra):
            return target.score(logits)

    return score


def noise_like(
    image: Image, count: int, generator: torch.Generator
) -> Float[Tensor, "count 3 height width"]:
    """Standard normal noise for `count` copies of an image.

    The numbers do not depend on torch's default type, the model's type or the device, and no global
    generator is used.
    """
    shape = (count, *image.shape[1:])
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(image.device)


def require_captum() -> None:
    """Check that captum is installed.

    Raises:
        NotSupportedError: if it is not; it names the extra to install.
    """
    try:
        import captum.attr  # noqa: F401
    except ImportError:
        raise NotSupportedError(
            "runs through captum, which is not installed; install gradtoken[bench]."
        ) from None
