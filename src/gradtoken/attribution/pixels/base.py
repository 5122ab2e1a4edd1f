"""What attributions on pixels have in common: captum's view of a model, and pooling to tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import Method
from gradtoken.attribution.widened import widened_if_narrow
from gradtoken.errors import NotSupportedError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.precision import wide
from gradtoken.targets import Targets
from gradtoken.trace.autograd import gradients_on
from gradtoken.trace.trace import Trace

Score: TypeAlias = Callable[
    [Float[Tensor, "pictures channels height width"]], Float[Tensor, " pictures"]
]
"""One target's score y of some pictures."""

Image: TypeAlias = Float[Tensor, "1 channels height width"]


class PixelMethod(Method):
    """A method that attributes a score to pixels, through captum, image by image."""

    by_gradient: ClassVar[bool] = True
    """Whether it needs the gradient at the pixels."""

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        require_captum()
        if self.by_gradient and not all(one.reading.differentiable for one in trace.backbones):
            raise NotSupportedError(
                f"needs the gradient at the pixels, and {trace.model.spec} turns "
                "gradients off for its embedding or blocks (torch.no_grad, or detached tokens); "
                "use gradtoken or occlusion."
            )
        maps = []
        with gradients_on(trace.model), widened_if_narrow(trace.model):
            for b in range(len(trace.images)):
                image = wide(trace.images[b : b + 1].clone())
                for k in range(targets.count):
                    found = self._attribute(score_of(trace, targets, b, k), image, trace)
                    maps.append(self._pooled(wide(found.detach()), trace.patch_grid))
        return torch.stack(maps).unflatten(0, (-1, targets.count))

    @abstractmethod
    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        """The attribution of one score to one image's pixels and channels."""

    def _pooled(self, pixels: Image, grid: PatchGrid) -> Float[Tensor, " patches"]:
        """The sum over each token's pixels and channels."""
        return grid.pool(pixels.sum(1)).flatten() * grid.area()


def score_of(trace: Trace, targets: Targets, image: int, k: int) -> Score:
    """Target k of one image, as a function of pictures in its place."""
    target, model = targets.rows[image][k], trace.model

    def score(
        pictures: Float[Tensor, "pictures channels height width"],
    ) -> Float[Tensor, " pictures"]:
        logits = wide(model.run(pictures.to(model.dtype)))
        return target.score(logits)

    return score


def noise_like(
    image: Image, count: int, generator: torch.Generator
) -> Float[Tensor, "count 3 height width"]:
    """Standard normal noise for `count` copies of an image: the same numbers whatever torch's
    default type, the model's type and the device, and no global generator is touched."""
    shape = (count, *image.shape[1:])
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(image.device)


def require_captum() -> None:
    """Raises MethodError naming the extra where captum is not installed."""
    try:
        import captum.attr  # noqa: F401
    except ImportError:
        raise NotSupportedError(
            "runs through captum, which is not installed; install gradtoken[bench]."
        ) from None
