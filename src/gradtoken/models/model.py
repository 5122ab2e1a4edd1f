"""A model as the rest of the library sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.forks import after_fork, one_thread_in_forks
from gradtoken.in_place import apart
from gradtoken.labels import Labels
from gradtoken.layout import TokenLayout
from gradtoken.models.anatomy import Anatomy
from gradtoken.preprocess import Preprocess
from gradtoken.prompts import PromptBatch, Prompts


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """An unmodified Vision Transformer with what is needed to explain it.

    Made by `load` and `wrap`; the module is used as it is and left as it was.

    Args:
        module: the network; `anatomy.forward` calls it for (B, C) logits.
        spec: the name it was loaded by.
        preprocess: from a picture to the module's input.
        labels: names of the classes.
        layout: which tokens are what.
        anatomy: where its blocks and pools are, and how its class is read.
        weights: where the weights are from, for manifests.
        prompts: reads text, for a model whose output is an embedding to compare with text.
    """

    module: nn.Module
    spec: str
    preprocess: Preprocess
    labels: Labels
    layout: TokenLayout
    anatomy: Anatomy
    weights: str = "as given"
    prompts: Prompts | None = None

    def __repr__(self) -> str:
        size = f"{len(self.labels)} classes" if self.prompts is None else "text prompts"
        return (
            f"Model({self.spec!r}: {type(self.module).__name__}, "
            f"{len(self.anatomy.blocks)} blocks, {self.anatomy.readout}, {size}, "
            f"{self.dtype} on {self.device})"
        )

    @property
    def device(self) -> torch.device:
        """Where the module's parameters are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the module computes in."""
        return next(self.module.parameters()).dtype

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The module in evaluation mode; every submodule's own mode is put back afterwards."""
        one_thread_in_forks()
        user = object()
        with _LOCK:
            modes = _MODES.setdefault(self.module, _Modes())
        try:
            with _LOCK:
                modes.enter(user, self.module)
            yield
        finally:
            with _LOCK:
                modes.leave(user)

    def read_text(self, texts: tuple[str, ...]) -> PromptBatch:
        """Embeddings of prompts, in evaluation mode and without a graph."""
        assert self.prompts is not None
        with self.evaluating(), torch.no_grad():
            return self.prompts(texts)

    def run(self, images: Float[Tensor, "batch 3 h w"]) -> Any:
        """What the module makes of a batch on its device; the batch stays as it is."""
        return self.anatomy.forward(self.module, apart(self.module, images))

    def __call__(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Logits of a preprocessed batch, in evaluation mode and without a graph."""
        with self.evaluating(), torch.no_grad():
            out: Tensor = self.run(images.to(self.device, self.dtype))
            return out


class _Modes:
    """Knows who needs a module ready, so that threads do not undo each other.

    What is changed is written down before it is changed, so that an interruption anywhere leaves
    nothing that `leave` does not put back.

    Ready is evaluation mode, and attention through `scaled_dot_product_attention` where a library
    has a switch for it.
    """

    def __init__(self) -> None:
        self._users: set[object] = set()
        self._training: list[nn.Module] = []
        self._switched: list[tuple[Any, str, Any]] = []

    def enter(self, user: object, module: nn.Module) -> None:
        first = not self._users
        self._users.add(user)
        if first:
            self._training = [part for part in module.modules() if part.training]
            for part in self._training:
                part.training = False
            switches = _switches(module)
            self._switched = [(owner, name, getattr(owner, name)) for owner, name, _ in switches]
            for owner, name, value in switches:
                setattr(owner, name, value)

    def leave(self, user: object) -> None:
        self._users.discard(user)
        self._put_back()

    def forget(self) -> None:
        """Nobody needs the module ready any more."""
        self._users.clear()
        self._put_back()

    def _put_back(self) -> None:
        if not self._users:
            for part in self._training:
                part.training = True
            for owner, name, value in self._switched:
                setattr(owner, name, value)
            self._training, self._switched = [], []


def _switches(module: nn.Module) -> list[tuple[Any, str, Any]]:
    """What turns on attention that can be tapped: (owner, attribute, value) where it is off.

    timm's modules carry `fused_attn`, transformers' share a config with `_attn_implementation`, and
    a module that was compiled in place runs as it was written.
    """
    found: dict[tuple[int, str], tuple[Any, str, Any]] = {}
    for part in module.modules():
        if getattr(part, "fused_attn", None) is False:
            found[id(part), "fused_attn"] = (part, "fused_attn", True)
        if getattr(part, "_compiled_call_impl", None) is not None:
            found[id(part), "compiled"] = (part, "_compiled_call_impl", None)
        config = getattr(part, "config", None)
        if getattr(config, "_attn_implementation", "sdpa") not in ("sdpa", None):
            found[id(config), "config"] = (config, "_attn_implementation", "sdpa")
    return list(found.values())


_MODES: WeakKeyDictionary[nn.Module, _Modes] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _start_anew() -> None:
    """In a fork its parent's threads are gone: none holds the lock or needs a module ready."""
    global _LOCK
    _LOCK = threading.Lock()
    for modes in _MODES.values():
        modes.forget()


after_fork(_start_anew)
