"""What attributions on pixels have in common: captum's view of a model, and pooling to tokens."""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.attribution.base import Method
from gradtoken.errors import MethodError
from gradtoken.forks import after_fork
from gradtoken.metrics.fills import Fill
from gradtoken.precision import wide
from gradtoken.targets import Targets
from gradtoken.trace import Trace
from gradtoken.widened import widened_if_narrow

Score: TypeAlias = Callable[[Float[Tensor, "pictures 3 height width"]], Float[Tensor, " pictures"]]
"""One target's score y of some pictures."""

Image: TypeAlias = Float[Tensor, "1 3 height width"]

_DRAWING = threading.RLock()


def _renew_lock() -> None:
    global _DRAWING
    _DRAWING = threading.RLock()


after_fork(_renew_lock)


class PixelMethod(Method):
    """A method that attributes a score to pixels, through captum, image by image."""

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        require_captum(self.name)
        maps = []
        with trace.differentiating(), widened_if_narrow(trace.model, self.name):
            for b in range(len(trace.images)):
                image = wide(trace.images[b : b + 1].clone())
                for k in range(targets.count):
                    found = self._attribute(score_of(trace, targets, b, k), image, trace)
                    maps.append(self._pooled(wide(found.detach()), trace.grid))
        return torch.stack(maps).unflatten(0, (-1, targets.count))

    @abstractmethod
    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        """The attribution of one score to one image's pixels and channels."""

    def _pooled(self, pixels: Image, grid: tuple[int, int]) -> Float[Tensor, " patches"]:
        """The sum over each token's pixels and channels."""
        area = pixels.shape[-2] * pixels.shape[-1] / (grid[0] * grid[1])
        return F.adaptive_avg_pool2d(pixels.sum(1), grid).flatten() * area


def score_of(trace: Trace, targets: Targets, image: int, k: int) -> Score:
    """Target k of one image, as a function of pictures in its place."""
    target, model = targets.rows[image][k], trace.model

    def score(pictures: Float[Tensor, "pictures 3 height width"]) -> Float[Tensor, " pictures"]:
        logits = wide(model.run(pictures.to(model.dtype)))
        return target.score(logits)

    return score


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed, for libraries that draw from the global generators.

    Those are shared, so one thread draws at a time; they are as before afterwards.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else None
    with _DRAWING, torch.random.fork_rng(devices):
        state = np.random.get_state()  # noqa: NPY002
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def require_captum(method: str) -> None:
    """Raises MethodError naming the extra where captum is not installed."""
    try:
        import captum.attr  # noqa: F401
    except ImportError:
        raise MethodError(
            f"{method} runs through captum, which is not installed; install gradtoken[bench]."
        ) from None


def check_whole(method: str, option: str, value: Any, least: int = 1) -> None:
    """Refuse an option that is no whole number from `least` up.

    Raises:
        MethodError: saying so.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise MethodError(
            f"{method}'s {option} is {value!r}; it must be a whole number from {least} up."
        )


def check_fraction(method: str, option: str, value: Any) -> None:
    """Refuse an option that is no number above 0 and up to 1.

    Raises:
        MethodError: saying so.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
        raise MethodError(f"{method}'s {option} is {value!r}; it must be above 0 and up to 1.")


def check_number(method: str, option: str, value: Any) -> None:
    """Refuse an option that is no finite number from 0 up.

    Raises:
        MethodError: saying so.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise MethodError(f"{method}'s {option} is {value!r}; it must be a number from 0 up.")


def check_seed(method: str, value: Any) -> None:
    """Refuse a seed that a generator would not take.

    Raises:
        MethodError: saying so.
    """
    check_whole(method, "seed", value, least=0)
    if value >= 1 << 32:
        raise MethodError(f"{method}'s seed is {value}; it must be below 2 to the power of 32.")


def check_fill(method: str, option: str, value: Any) -> None:
    """Refuse an option that names no fill (`gradtoken.metrics.fills`).

    Raises:
        MethodError: saying so.
    """
    if value not in get_args(Fill):
        known = ", ".join(map(repr, get_args(Fill)))
        raise MethodError(f"{method}'s {option} is {value!r}; it can be {known}.")
