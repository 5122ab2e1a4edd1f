"""Finding out whether a model recomputes parts of itself in the backward pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.tap import AttentionCall, Recorder


class CheckpointRecorder(Recorder):
    """A recorder that notes whether what its blocks save for a backward pass is really kept.

    Under gradient checkpointing it is dropped and computed again, where no tap sees it: attention
    written out, or answered from a recorded forward, would silently become the model's own.
    """

    def __init__(self) -> None:
        super().__init__(queries=False)
        self.recomputes = False
        self._outside = saved_elsewhere()

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        self._look()
        return super().attend(call, run)

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        self._look()
        return super().linear(input, weight, bias)

    def _look(self) -> None:
        if self.place is not None and not self.recomputes and not self._outside:
            self.recomputes = saved_elsewhere()

    def check(self, spec: str) -> None:
        """Raises ModelError if the model recomputes parts of itself."""
        if self.recomputes:
            raise ModelError(
                f"{spec} computes parts of itself again in the backward pass (gradient "
                "checkpointing), where they cannot be followed; turn that off, for instance with "
                "set_grad_checkpointing(False) or gradient_checkpointing_disable()."
            )


def saved_elsewhere() -> bool:
    """Whether tensors that an operation saves for its backward pass are not kept by its graph.

    That is so under hooks on saved tensors, of which `torch.utils.checkpoint` is made.
    """
    with torch.enable_grad():
        factor = torch.ones(1, requires_grad=True)
        saved = torch.ones(1)
        kept = weakref.ref(saved)
        product = factor * saved
        del saved
        return kept() is None and product.requires_grad
