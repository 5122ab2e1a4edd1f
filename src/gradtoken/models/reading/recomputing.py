"""Blocks that compute parts of themselves again in the backward pass."""

from __future__ import annotations

from contextlib import suppress

import torch

from gradtoken.models.model import Model
from gradtoken.models.reading.checkpointing import CheckpointRecorder
from gradtoken.models.reading.observe import FAILURES, with_autograd
from gradtoken.tap.in_place import writable
from gradtoken.tap.watch import Seen


def check_inside(model: Model, seen: Seen) -> None:
    """See that no block computes parts of itself again, by running the outer two on one token.

    Raises:
        ModelError: if one does.
    """
    anatomy = model.anatomy
    for index in {0, len(anatomy.blocks) - 1}:
        token = seen.inputs[index][:, :1].detach().requires_grad_()
        with with_autograd(model), torch.enable_grad(), writable(model.module) as saved:
            recorder = CheckpointRecorder(saved)
            recorder.place = index
            with recorder, suppress(*FAILURES):
                anatomy.step(anatomy.blocks[index], token.clone(), seen.given[index])
        recorder.check(model.spec)
