"""Gradient checkpointing inside blocks, shown by running two of them."""

from __future__ import annotations

from contextlib import suppress

import torch

from gradtoken.models.model import Model
from gradtoken.models.reading.checkpointing import CheckpointRecorder
from gradtoken.models.reading.observe import FAILURES, with_copies
from gradtoken.tap.hooks import BlockRecord


def check_no_recomputation(model: Model, record: BlockRecord) -> None:
    """See that no block recomputes parts of itself, by running the first and last on one token.

    Raises:
        ModelError: if one does.
    """
    anatomy = model.anatomy
    for index in {0, len(anatomy.blocks) - 1}:
        token = record.inputs[index][:, :1].detach().requires_grad_()
        with with_copies(model) as saved, torch.enable_grad():
            recorder = CheckpointRecorder(saved)
            recorder.place = index
            with recorder, suppress(*FAILURES):
                anatomy.step(anatomy.blocks[index], token.clone(), record.arguments[index])
        recorder.check(model.spec)
