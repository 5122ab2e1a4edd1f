"""What a model and its surroundings are like, to see that they are left so."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from gradtoken.models.evaluation import count_users

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def state_of(module: nn.Module) -> dict[str, Any]:
    """Everything that explaining must not change: hooks, modes, flags, gradients, generators."""
    parts = list(module.named_modules())
    return {
        "hooks": [
            (name, hook, len(getattr(part, hook))) for name, part in parts for hook in _HOOKS
        ],
        "training": [part.training for _, part in parts],
        "fused": [getattr(part, "fused_attn", None) for _, part in parts],
        "gradients": [value.grad is None for value in module.parameters()],
        "wanted": [value.requires_grad for value in module.parameters()],
        "weights": [float(value.detach().sum()) for value in module.parameters()],
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "function modes": len(_get_current_function_mode_stack()),
        "users": count_users(module),
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "python": random.getstate(),
    }


def files_in(folder: Path) -> list[str]:
    """Every file and folder below, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
