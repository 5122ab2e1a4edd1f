"""Evaluation mode, uncompiled and with attention that can be recorded, and back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from gradtoken.models.batch_norm import ContiguousBatchNorm, has_batch_norm
from gradtoken.models.forks import after_fork, one_thread_in_forks


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Prepare a module for explaining, inside the `with` block; see `Model.evaluating`.

    Users are counted and not nested: a generator that is left in the middle and another that was
    entered after it may end in any order.
    """
    one_thread_in_forks()
    user = object()
    with _LOCK:
        prepared = _PREPARED.setdefault(module, _Prepared())
    try:
        with _LOCK:
            prepared.enter(user, module)
            _EAGER.enter(user)
        with ContiguousBatchNorm() if prepared.batch_norm else nullcontext():
            yield
    finally:
        try:
            _leave(prepared, user)
        except BaseException:  # interrupted while restoring, which can be done again
            _leave(prepared, user)
            raise


def _leave(prepared: _Prepared, user: object) -> None:
    with _LOCK:
        _EAGER.leave(user)
        prepared.leave(user)


def count_users(module: nn.Module) -> int:
    """How many `with` blocks a module is prepared for now."""
    with _LOCK:
        return len(_PREPARED[module].users) if module in _PREPARED else 0


class _Prepared:
    """Counts the users of a prepared module, so that threads do not undo each other.

    A prepared module is in evaluation mode, and its attention goes through
    `scaled_dot_product_attention` where its library has a switch for it. Every change is noted
    before it is made, so that `leave` restores all of them after an interruption anywhere.
    """

    def __init__(self) -> None:
        self.users: set[object] = set()
        self.batch_norm = False
        """Whether the module has batch normalisation; valid while it has users."""
        self._training: list[nn.Module] = []
        self._switched: list[tuple[Any, str, Any]] = []

    def enter(self, user: object, module: nn.Module) -> None:
        first = not self.users
        self.users.add(user)
        if first:
            self.batch_norm = has_batch_norm(module)
            self._training = [part for part in module.modules() if part.training]
            for part in self._training:
                part.training = False
            switches = _switches(module)
            self._switched = [(owner, name, getattr(owner, name)) for owner, name, _ in switches]
            for owner, name, value in switches:
                setattr(owner, name, value)

    def leave(self, user: object) -> None:
        self.users.discard(user)
        self._restore()

    def forget(self) -> None:
        """Drop all users and restore the module."""
        self.users.clear()
        self._restore()

    def _restore(self) -> None:
        if not self.users:
            for part in self._training:
                part.training = True
            for owner, name, value in self._switched:
                setattr(owner, name, value)
            self._training, self._switched = [], []


_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing", "use_checkpoint", "with_cp")
"""Names of the flag for gradient checkpointing, by library."""


def _switches(module: nn.Module) -> list[tuple[Any, str, Any]]:
    """The attributes to set so that attention can be recorded: (owner, attribute, value).

    timm's modules have `fused_attn`, transformers' share a config with `_attn_implementation`, and
    a module that was compiled in place is run uncompiled. Gradient checkpointing, which would run
    blocks again in a backward pass, is turned off where a flag turns it on.
    """
    switches: dict[tuple[int, str], tuple[Any, str, Any]] = {}
    for part in module.modules():
        if getattr(part, "fused_attn", None) is False:
            switches[id(part), "fused_attn"] = (part, "fused_attn", True)
        for name in _CHECKPOINTING:
            if getattr(part, name, None) is True:
                switches[id(part), name] = (part, name, False)
        if getattr(part, "_compiled_call_impl", None) is not None:
            switches[id(part), "compiled"] = (part, "_compiled_call_impl", None)
        config = getattr(part, "config", None)
        if getattr(config, "_attn_implementation", "sdpa") not in ("sdpa", None):
            switches[id(config), "config"] = (config, "_attn_implementation", "sdpa")
    return list(switches.values())


class _EagerStance:
    """Runs compiled functions and modules uncompiled while there are users.

    Compiled code hides its attention from taps. torch has one such setting for the whole process,
    so compiled code of other threads is slower meanwhile.
    """

    def __init__(self) -> None:
        self.users: set[object] = set()
        self._stance: Any = None

    def enter(self, user: object) -> None:
        if "torch._dynamo" not in sys.modules:
            return
        self.users.add(user)
        if self._stance is None:
            self._stance = torch.compiler.set_stance("force_eager")

    def forget(self) -> None:
        """Drop all users and restore the setting."""
        self.users.clear()
        self.leave(None)

    def leave(self, user: object) -> None:
        self.users.discard(user)
        if not self.users and self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None


_EAGER = _EagerStance()
_PREPARED: WeakKeyDictionary[nn.Module, _Prepared] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _reset_after_fork() -> None:
    """In a forked process the parent's threads are gone: none holds the lock or uses a module."""
    global _LOCK  # noqa: PLW0603
    _LOCK = threading.Lock()
    _EAGER.forget()
    for prepared in _PREPARED.values():
        prepared.forget()


after_fork(_reset_after_fork)
