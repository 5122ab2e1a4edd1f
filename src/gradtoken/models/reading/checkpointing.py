"""Detecting gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.in_place import SavedTensorCopies
from gradtoken.tap.recorder import Recorder


class CheckpointRecorder(Recorder):
    """A recorder that notes whether what its blocks save for a backward pass is kept.

    Under gradient checkpointing it is dropped and computed again, outside the tap: eager attention,
    or attention answered from a recorded forward, would silently become the model's own.

    Args:
        saved: keeps what is saved without checkpointing.
    """

    def __init__(self, saved: SavedTensorCopies) -> None:
        super().__init__(queries=False, copies=True)
        self.recomputes = False
        self._saved = saved

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        self._check_saved()
        return super().attend(call, run)

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        self._check_saved()
        return super().linear(input, weight, bias)

    def _check_saved(self) -> None:
        if self.place is not None and not self.recomputes:
            self.recomputes = not self._saved.active

    def check(self, spec: str) -> None:
        """Raises ModelError if the model recomputes parts of itself."""
        if self.recomputes:
            raise ModelError(
                f"{spec} computes parts of itself again in the backward pass (gradient "
                "checkpointing), where they cannot be followed; turn that off, for instance with "
                "set_grad_checkpointing(False) or gradient_checkpointing_disable()."
            )
