"""Raw attention: the class token's attention in the last block, independent of the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import NO_GRADIENT, Method
from gradtoken.errors import NotSupportedError
from gradtoken.tap.alignment import along_sequence
from gradtoken.tap.attention_call import TAIL
from gradtoken.targets import Targets
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class RawAttention(Method):
    """R_i = mean over heads of A^L[r, i]: the readout's attention in its last attention step.

    That is the last block, or the attention pool or class attention after it; where tokens are
    averaged, the mean over their rows.
    """

    name: ClassVar[str] = "raw-attention"
    summary: ClassVar[str] = "the class token's attention in the last block, same for every class"
    source: ClassVar[str] = "Dosovitskiy et al., ICLR 2021; baseline of Chefer et al., CVPR 2021"
    no_libra: ClassVar[str] = NO_GRADIENT
    class_aware: ClassVar[bool] = False

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        if not trace.calls:
            raise NotSupportedError(
                f"shows the last block's attention, which {trace.model.spec} "
                "computes by hand or within windows; use gradtoken."
            )
        trace.check_one_chain()
        last = trace.calls[-1]
        if last.place == TAIL:
            weights = last.rows(slice(None)).mean(dim=(1, 2))
            row = trace.patch_grid.pick(along_sequence(weights, trace.tail_keys()))
        else:
            row = trace.patch_grid.pick(last.rows(trace.rows()).mean(dim=(1, 2)))
        return row[:, None].expand(-1, targets.count, -1)
