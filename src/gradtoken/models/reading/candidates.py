"""The modules that may be the blocks of a model: those that make its attention calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from gradtoken.errors import ModelError
from gradtoken.models.model import Model
from gradtoken.models.reading.observe import (
    run,
    sample_input,
    with_autograd,
)
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.recorder import Recorder

_MOST_LISTS = 4


def block_lists(model: Model) -> list[tuple[nn.Module, ...]]:
    """Lists of modules that may be the model's blocks, the most likely first.

    They are the modules of one kind that make attention calls and are not inside one another. More
    modules are more likely, and so are those around others of the same number. Then come the
    outermost modules that make one attention call each, whatever their kind, and single modules
    last.

    Raises:
        ModelError: if the model makes no attention call that can be seen.
    """
    tour = _tour(model)
    if not tour.calls:
        raise ModelError(
            f"{model.spec} ({type(model.module).__name__}) is not a Vision Transformer that can be "
            "read: no attention was seen in it, because it has none or computes it by hand; use "
            "scaled_dot_product_attention or nn.MultiheadAttention in it."
        )
    groups: dict[type[nn.Module], list[nn.Module]] = {}
    for module in tour.modules:
        groups.setdefault(type(module), []).append(module)
    lists = [tuple(group) for group in groups.values() if not _nested(group)]
    lists.sort(key=lambda group: (-len(group), -sum(1 for _ in group[0].modules())))
    single = [module for module in tour.modules if tour.count[id(module)] == 1]
    below = {id(part) for m in single for part in m.modules() if part is not m}
    outermost = tuple(module for module in single if id(module) not in below)
    several = [group for group in lists if len(group) > 1]
    alone = [group for group in lists if len(group) == 1]
    candidates = [*several[:_MOST_LISTS], outermost, *alone[:_MOST_LISTS]]
    return list(dict.fromkeys(group for group in candidates if group))


class _Tour(Recorder):
    """Notes which modules are running at each attention call."""

    def __init__(self) -> None:
        super().__init__(queries=False)
        self.place = 0
        self.modules: list[nn.Module] = []
        self.count: dict[int, int] = {}
        self._stack: list[nn.Module] = []
        self._thread = threading.get_ident()

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        for module in self._stack:
            if id(module) not in self.count:
                self.modules.append(module)
            self.count[id(module)] = self.count.get(id(module), 0) + 1
        return super().attend(call, run)

    def enter(self, module: nn.Module, _: Any) -> None:
        if threading.get_ident() == self._thread:
            self._stack.append(module)

    def leave(self, module: nn.Module, *_: Any) -> None:
        if threading.get_ident() == self._thread:
            self._stack.pop()


def _tour(model: Model) -> _Tour:
    tour = _Tour()
    with with_autograd(model), torch.no_grad(), ExitStack() as hooks:
        for module in model.module.modules():
            if module is not model.module:
                hooks.callback(module.register_forward_pre_hook(tour.enter).remove)
                hooks.callback(module.register_forward_hook(tour.leave).remove)
        with tour:
            run(model, sample_input(model))
    return tour


def _nested(group: Sequence[nn.Module]) -> bool:
    ids = {id(module) for module in group}
    return any(id(part) in ids for m in group for part in m.modules() if part is not m)
