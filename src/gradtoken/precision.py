"""Half precision: where sums are taken in float32 instead."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is in half precision, else unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast on a tensor's device, for sums that half precision would blur."""
    return torch.autocast(like.device.type, enabled=False)
