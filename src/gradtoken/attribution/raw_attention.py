"""Raw attention: what the class token looks at in the last block, whatever the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import Method
from gradtoken.targets import Targets
from gradtoken.trace import Trace


@dataclass(frozen=True, kw_only=True)
class RawAttention(Method):
    """R_i = mean over heads of A^L[r, i]: the readout token's attention in the last block."""

    name: ClassVar[str] = "raw-attention"
    summary: ClassVar[str] = "the class token's attention in the last block, same for every class"
    source: ClassVar[str] = "Dosovitskiy et al., ICLR 2021; baseline of Chefer et al., CVPR 2021"
    class_aware: ClassVar[bool] = False

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        layout = trace.model.layout
        row = trace.calls[-1].rows(layout.readout).mean(dim=1)
        return row[..., layout.prefix :].expand(-1, targets.count, -1)
