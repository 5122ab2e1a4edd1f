"""A model as the rest of the library sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.labels import Labels
from gradtoken.layout import TokenLayout
from gradtoken.preprocess import Preprocess


class Stream(Protocol):
    """What carries the readout token through a model: its own blocks, then its own head."""

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks in order, each called as block(tokens)."""

    def head(self, token: Float[Tensor, "rows 1 dim"]) -> Float[Tensor, "rows classes"]:
        """The model's final norm and head on the readout token alone."""


@dataclass(frozen=True, eq=False)
class Model:
    """An unmodified Vision Transformer with what is needed to explain it.

    Made by `load` and `wrap`; the module is used as it is and left as it was.

    Args:
        module: the network, called as module(images) -> (B, C) logits.
        spec: the name it was loaded by.
        preprocess: from a picture to the module's input.
        labels: names of the classes.
        layout: which tokens are what.
        stream: how the readout token runs through the blocks.
        weights: where the weights are from, for manifests.
    """

    module: nn.Module
    spec: str
    preprocess: Preprocess
    labels: Labels
    layout: TokenLayout
    stream: Stream
    weights: str = "as given"

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
        with _LOCK:
            modes = _MODES.setdefault(self.module, _Modes())
            modes.enter(self.module)
        try:
            yield
        finally:
            with _LOCK:
                modes.leave()

    def __call__(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Logits of a preprocessed batch, in evaluation mode and without a graph."""
        with self.evaluating(), torch.no_grad():
            out: Tensor = self.module(images.to(self.device, self.dtype))
            return out


class _Modes:
    """Counts who needs a module in evaluation mode, so that threads do not undo each other."""

    def __init__(self) -> None:
        self._users = 0
        self._training: list[nn.Module] = []

    def enter(self, module: nn.Module) -> None:
        if self._users == 0:
            self._training = [part for part in module.modules() if part.training]
            for part in self._training:
                part.training = False
        self._users += 1

    def leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            for part in self._training:
                part.training = True
            self._training = []


_MODES: WeakKeyDictionary[nn.Module, _Modes] = WeakKeyDictionary()
_LOCK = threading.Lock()
