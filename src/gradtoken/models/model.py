"""A model as the rest of the library sees it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.images.preprocess import Preprocess
from gradtoken.models.batch_norm import ContiguousBatchNorm, has_batch_norm
from gradtoken.models.entry import first_layer, input_dtype
from gradtoken.models.facts import Reading
from gradtoken.models.forks import after_fork, one_thread_in_forks
from gradtoken.models.layout import TokenLayout
from gradtoken.tap.anatomy import Anatomy
from gradtoken.targets.activation import Activation
from gradtoken.targets.labels import Labels
from gradtoken.targets.prompts import PromptBatch, Prompts


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
        others: the same model with the blocks of its further backbones, if it has several.
        reading: what was verified of all this.
        activation: how logits become probabilities: "softmax" (one class of all), "sigmoid" (each
            class by itself) or "none" (they are no probabilities). A model with `prompts` has
            "none", and probabilities of prompts by the rule it was trained with.
    """

    module: nn.Module
    spec: str
    preprocess: Preprocess
    labels: Labels
    layout: TokenLayout
    anatomy: Anatomy
    weights: str = "as given"
    prompts: Prompts | None = None
    others: tuple[Model, ...] = ()
    reading: Reading | None = field(default=None, repr=False)
    activation: Activation = "softmax"

    def __repr__(self) -> str:
        size = "text prompts"
        if self.prompts is None:
            shown = "" if self.activation == "softmax" else f" ({self.activation})"
            size = f"{len(self.labels)} classes{shown}"
        return (
            f"Model({self.spec!r}: {type(self.module).__name__}, "
            f"{len(self.anatomy.blocks)} blocks, {self.anatomy.readout}, {size}, "
            f"{self.dtype} on {self.device})"
        )

    @property
    def probability(self) -> str:
        """What probabilities are made by, for manifests: the activation, or "by prompt"."""
        return self.activation if self.prompts is None else "by prompt"

    @property
    def device(self) -> torch.device:
        """Where the module's parameters are."""
        return next(self.module.parameters()).device

    @cached_property
    def _first_layer(self) -> nn.Module | None:
        return first_layer(self.module)

    @property
    def dtype(self) -> torch.dtype:
        """What the module takes images in."""
        return input_dtype(self._first_layer, self.module)

    @property
    def channels(self) -> int:
        """C, the number of channels of the images it takes."""
        return self.preprocess.depth

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The module in evaluation mode, not compiled, with the right gradients of batch
        normalisation; every submodule's own mode is put back afterwards."""
        one_thread_in_forks()
        user = object()
        with _LOCK:
            modes = _MODES.setdefault(self.module, _Modes())
        try:
            with _LOCK:
                modes.enter(user, self.module)
                _EAGER.enter(user)
            with ContiguousBatchNorm() if modes.batch_norm else nullcontext():
                yield
        finally:
            with _LOCK:
                _EAGER.leave(user)
                modes.leave(user)

    def read_text(self, texts: tuple[str, ...]) -> PromptBatch:
        """Embeddings of prompts, in evaluation mode and without a graph."""
        assert self.prompts is not None
        with self.evaluating(), torch.no_grad():
            return self.prompts(texts)

    @property
    def writes_in_place(self) -> bool:
        """Whether the module writes into tensors in place, or may, since it was not read yet."""
        return self.reading is None or self.reading.writes_in_place

    def apart(self, tensor: Tensor) -> Tensor:
        """A tensor for the module to work on: a copy if the module may write into it."""
        return tensor.clone() if self.writes_in_place else tensor

    def run(self, images: Float[Tensor, "batch channels h w"]) -> Any:
        """What the module makes of a batch on its device; the batch stays as it is."""
        return self.anatomy.forward(self.module, self.apart(images))

    def __call__(
        self, images: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, "batch classes"]:
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
        self.batch_norm = False
        """Whether the module has batch normalisation; told while anybody needs it ready."""
        self._training: list[nn.Module] = []
        self._switched: list[tuple[Any, str, Any]] = []

    def enter(self, user: object, module: nn.Module) -> None:
        first = not self._users
        self._users.add(user)
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


_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing", "use_checkpoint", "with_cp")
"""What libraries call the flag of a module that computes parts of itself again."""


def _switches(module: nn.Module) -> list[tuple[Any, str, Any]]:
    """What turns on attention that can be tapped: (owner, attribute, value) where it is off.

    timm's modules carry `fused_attn`, transformers' share a config with `_attn_implementation`, and
    a module that was compiled in place runs as it was written. Gradient checkpointing, which would
    run blocks again in a backward pass, is turned off where a flag turns it on.
    """
    found: dict[tuple[int, str], tuple[Any, str, Any]] = {}
    for part in module.modules():
        if getattr(part, "fused_attn", None) is False:
            found[id(part), "fused_attn"] = (part, "fused_attn", True)
        for name in _CHECKPOINTING:
            if getattr(part, name, None) is True:
                found[id(part), name] = (part, name, False)
        if getattr(part, "_compiled_call_impl", None) is not None:
            found[id(part), "compiled"] = (part, "_compiled_call_impl", None)
        config = getattr(part, "config", None)
        if getattr(config, "_attn_implementation", "sdpa") not in ("sdpa", None):
            found[id(config), "config"] = (config, "_attn_implementation", "sdpa")
    return list(found.values())


class _Eager:
    """Has compiled functions and modules run as they were written, while somebody needs that.

    What `torch.compile` made of a part of a model hides its attention from taps. torch knows one
    such setting for the whole process, so other threads' compiled code is slower meanwhile.
    """

    def __init__(self) -> None:
        self._users: set[object] = set()
        self._stance: Any = None

    def enter(self, user: object) -> None:
        if "torch._dynamo" not in sys.modules:
            return
        self._users.add(user)
        if self._stance is None:
            self._stance = torch.compiler.set_stance("force_eager")

    def forget(self) -> None:
        """Nobody needs it any more."""
        self._users.clear()
        self.leave(None)

    def leave(self, user: object) -> None:
        self._users.discard(user)
        if not self._users and self._stance is not None:
            stance, self._stance = self._stance, None
            stance.__exit__(None, None, None)


_EAGER = _Eager()
_MODES: WeakKeyDictionary[nn.Module, _Modes] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _start_anew() -> None:
    """In a fork its parent's threads are gone: none holds the lock or needs a module ready."""
    global _LOCK
    _LOCK = threading.Lock()
    _EAGER.forget()
    for modes in _MODES.values():
        modes.forget()


after_fork(_start_anew)
