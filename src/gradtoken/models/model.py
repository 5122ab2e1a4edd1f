"""A Vision Transformer that can be explained."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from warnings import warn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.images.preprocess import Preprocess
from gradtoken.models.evaluation import evaluation_mode
from gradtoken.models.input_layer import first_layer, input_dtype
from gradtoken.models.layout import TokenLayout
from gradtoken.models.verification import Reading
from gradtoken.tap.anatomy import Anatomy
from gradtoken.targets.activation import Activation
from gradtoken.targets.labels import Labels
from gradtoken.targets.prompts import PromptBatch, Prompts


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """An unmodified Vision Transformer, and what is needed to explain it.

    Made by `load` and `wrap`; the module is used as it is and left as it was.

    Args:
        module: the network; `anatomy.forward` calls it for (B, C) logits.
        spec: the name it was loaded by.
        preprocess: from an image to the module's input.
        labels: names of the classes.
        layout: which tokens are what.
        anatomy: its blocks and pools, and how its class is read.
        weights: the source of the weights, for manifests.
        prompts: embeds text, for a model whose output is an embedding to compare with text.
        others: the same model with the blocks of its further backbones, if it has several.
        reading: what was verified of the layout and anatomy.
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
        """How probabilities are computed, for manifests: the activation, or "by prompt"."""
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
        """The type of the module's input."""
        return input_dtype(self._first_layer, self.module)

    @property
    def channels(self) -> int:
        """C, the number of channels of the images it takes."""
        return self.preprocess.depth

    def evaluating(self) -> AbstractContextManager[None]:
        """The module in evaluation mode, not compiled, with the right gradients of batch
        normalisation; every submodule's own mode is restored afterwards.

        It may be entered inside itself and by several threads: the first to enter prepares the
        module and the last to leave restores it.
        """
        return evaluation_mode(self.module)

    def read_text(self, texts: tuple[str, ...]) -> PromptBatch:
        """Embeddings of prompts, in evaluation mode and without a graph."""
        assert self.prompts is not None
        with self.evaluating(), torch.no_grad():
            return self.prompts(texts)

    @property
    def writes_in_place(self) -> bool:
        """Whether the module writes into tensors in place, or may, as it was not read yet."""
        return self.reading is None or self.reading.writes_in_place

    def writable(self, tensor: Tensor) -> Tensor:
        """A tensor that the module may write into: a copy if it writes in place."""
        return tensor.clone() if self.writes_in_place else tensor

    def apart(self, tensor: Tensor) -> Tensor:
        """The old name of `writable`."""
        warn("Model.apart is now Model.writable.", DeprecationWarning, stacklevel=2)
        return self.writable(tensor)

    def run(self, images: Float[Tensor, "batch channels h w"]) -> Any:
        """The module's output for a batch on its device; the batch is not changed."""
        return self.anatomy.forward(self.module, self.writable(images))

    def __call__(
        self, images: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits of a preprocessed batch, in evaluation mode and without a graph."""
        with self.evaluating(), torch.no_grad():
            out: Tensor = self.run(images.to(self.device, self.dtype))
            return out
