"""Modules by name, or from a file that describes itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradtoken.models.build_model import LoadedModule
from gradtoken.models.checkpoint import read_checkpoint
from gradtoken.models.families import BuiltModel, Size, family
from gradtoken.models.hub import weights_only
from gradtoken.models.input_layer import count_channels
from gradtoken.models.self_describing import read_described


def load_named(
    prefix: str,
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    pretrained: bool,
    size: Size | None,
) -> LoadedModule:
    """A model of a library by name; random weights are always the same ones.

    Args:
        prefix: the library, one of `FAMILIES`.
        name: the model's name there.
        checkpoint: a file of weights, or None.
        pretrained: whether the library's own weights are loaded, without a checkpoint.
        size: (height, width) of its input, or None for its own.

    Raises:
        ModelError: unknown name, or weights that cannot be loaded or do not fit.
    """
    with _reproducible_random_weights(not pretrained):
        loaded = _load_named(prefix, name, checkpoint, pretrained, size)
        if not pretrained:
            _fill_zero_layers(loaded.module)
    return loaded


def _load_named(
    prefix: str,
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    pretrained: bool,
    size: Size | None,
) -> LoadedModule:
    library, spec = family(prefix), f"{prefix}/{name}"
    state: dict[str, Tensor] | None = None
    description: dict[str, Any] = {}
    weights = prefix if pretrained else "random"
    if checkpoint is not None:
        state, description = read_checkpoint(os.fspath(checkpoint))
        weights = os.fspath(checkpoint)
    with weights_only():
        built: BuiltModel = library.build(name, pretrained=pretrained, state=state, size=size)
    return LoadedModule(
        built.module,
        spec,
        built.preprocess and built.preprocess.of_library(count_channels(built.module)),
        description.get("classes"),
        weights=weights,
        prompts=built.prompts,
        activation=description.get("activation"),
    )


@contextmanager
def _reproducible_random_weights(random: bool) -> Iterator[None]:
    """Random weights are the same each time, whatever torch's default type; that type and the
    caller's generator are restored afterwards.
    """
    if not random:
        yield
        return
    before = torch.get_default_dtype()
    with torch.random.fork_rng():
        try:
            torch.manual_seed(0)
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(before)


def _fill_zero_layers(module: nn.Module) -> None:
    """Give linear layers that start at zero small random weights, or every map would be blank."""
    for part in module.modules():
        if isinstance(part, nn.Linear) and not bool(part.weight.any()):
            nn.init.trunc_normal_(part.weight, std=0.02)


def load_described(path: Path, spec: str, size: Size | None, *, weights: str) -> LoadedModule:
    """A model whose safetensors file describes its architecture, labels and preprocessing.

    Raises:
        ModelError: if the file cannot be read, or does not describe a model.
    """
    module, preprocess, labels, activation = read_described(path, spec, size)
    return LoadedModule(module, spec, preprocess, labels, weights=weights, activation=activation)
