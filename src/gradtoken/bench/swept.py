"""Groups of metrics that read the logits of variants which are known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from gradtoken.bench.maps import Maps
from gradtoken.metrics.pixel_replacement import Replacement

MetricValues: TypeAlias = dict[str, dict[str, float]]
"""Values by metric, then by object."""

Logits: TypeAlias = Mapping[str, Float[Tensor, "1 counts classes"]]


@dataclass(frozen=True)
class Swept:
    """A group of metrics of a method's maps, by the logits of variants of their image.

    Args:
        plan: the variants, by name.
        values: the metrics by the logits of the variants.
    """

    plan: Callable[[Maps], Mapping[str, Replacement]]
    values: Callable[[Maps, Logits], MetricValues]

    def __call__(self, maps: Maps) -> MetricValues:
        """The metrics of a method's maps."""
        sweeps = maps.case.sweeps
        return self.values(
            maps, {name: sweeps.logits(variants) for name, variants in self.plan(maps).items()}
        )

    def request(self, maps: Maps) -> None:
        """Put what the metrics of these maps need among the variants that run next."""
        for variants in self.plan(maps).values():
            maps.case.sweeps.request(variants)
