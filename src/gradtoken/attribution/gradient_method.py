"""The base of methods that use a gradient, which LibraGrad can correct for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from gradtoken.attribution.base import Method
from gradtoken.attribution.options import check_flag


@dataclass(frozen=True, kw_only=True)
class GradientMethod(Method):
    """A method that uses the gradient of the score by pixels, tokens or attention.

    Args:
        libra: take the gradients of LibraGrad's backward pass (Mehri, Baghshah, Pilehvar, CVPR
            2025): attention weights, gates of activations and denominators of normalisations are
            constants in it, and where two variables are multiplied, each gets half. The forward is
            unchanged.
    """

    libra: bool = False

    def __post_init__(self) -> None:
        check_flag(self, "libra")
