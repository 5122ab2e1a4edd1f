"""A snapshot of a module, to check that an explanation leaves it unchanged."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Snapshot:
    """Everything about a module that an explanation must not change."""

    def __init__(self, module: nn.Module) -> None:
        self.state = copy.deepcopy(module.state_dict())
        self.modes = [m.training for m in module.modules()]
        self.grads = [p.grad for p in module.parameters()]
        self.flags = [p.requires_grad for p in module.parameters()]
        self.hooks = [self._hooks(m) for m in module.modules()]
        self.attributes = [sorted(vars(m)) for m in module.modules()]
        self.rng = torch.get_rng_state()
        self.grad_enabled = torch.is_grad_enabled()

    @staticmethod
    def _hooks(module: nn.Module) -> tuple[list[int], ...]:
        return tuple(
            list(getattr(module, name))
            for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        )

    def check(self, module: nn.Module) -> None:
        now = Snapshot(module)
        pairs = zip(self.state.values(), now.state.values(), strict=True)
        assert all(torch.equal(before, after) for before, after in pairs)
        assert self.modes == now.modes
        assert all(a is b for a, b in zip(self.grads, now.grads, strict=True))
        assert self.flags == now.flags
        assert self.hooks == now.hooks
        assert self.attributes == now.attributes
        assert torch.equal(self.rng, now.rng)
        assert self.grad_enabled == now.grad_enabled
        assert len(torch.overrides._get_current_function_mode_stack()) == 0
