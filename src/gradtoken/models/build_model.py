"""From a module to a verified `Model`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradtoken.errors import ModelError
from gradtoken.images.preprocess import Preprocess
from gradtoken.models.detect_activation import check_no_activation, detect_activation
from gradtoken.models.families import family_of
from gradtoken.models.input_layer import count_channels, with_channels
from gradtoken.models.layout import TokenLayout
from gradtoken.models.model import Model
from gradtoken.models.reading.reading import read
from gradtoken.tap.anatomy import Anatomy
from gradtoken.tap.logits import as_logits
from gradtoken.targets.activation import Activation
from gradtoken.targets.labels import Labels, Names
from gradtoken.targets.prompts import Prompts


@dataclass(frozen=True)
class LoadedModule:
    """A module with what its source tells; None is read from the module.

    Args:
        module: the network.
        spec: the name it was loaded by.
        preprocess: from an image to its input.
        labels: names of its classes.
        weights: the source of its weights, for manifests.
        prompts: embeds text, of a model that compares images with text.
        activation: as described in the file of its weights.
    """

    module: nn.Module
    spec: str
    preprocess: Preprocess | None = None
    labels: Names | None = None
    weights: str = "as given"
    prompts: Prompts | None = None
    activation: object = None


def build_model(
    source: LoadedModule,
    *,
    layout: TokenLayout | None = None,
    forward: Callable[[Any, Tensor], Any] | None = None,
    activation: Activation | None = None,
    tokenizer: Any = None,
) -> Model:
    """A module as a `Model`, whose reading is verified.

    Args:
        source: the module, and what is known of it.
        layout: the user's, or None to read it from the module.
        forward: the user's, or None to call the module.
        activation: the user's, or None to detect it.
        tokenizer: the user's, or None for the model's own.

    Raises:
        ModelError: if the module cannot be explained, or an argument does not fit it.
    """
    module, spec = source.module, source.spec
    _check_differentiable(module, spec)
    family = family_of(module)
    if family is None and source.preprocess is None:
        raise ModelError(
            f"{spec} is a module of no library that gradtoken knows (timm, transformers, "
            "torchvision, open_clip), so its input is not known either; pass "
            "wrap(…, preprocess=…) to have it read by running it."
        )
    anatomy, claimed, unreadable = Anatomy("to be read", ()), TokenLayout(None), None
    if family is not None:
        try:
            anatomy, claimed = family.read(module, spec)
        except ModelError as error:
            unreadable = error
    prompts = _prompts(source, family, tokenizer)
    if forward is not None:
        anatomy = replace(anatomy, forward=partial(_call_forward, forward))
    model = Model(
        module=module,
        spec=spec,
        preprocess=_preprocess(family, module, source.preprocess),
        labels=Labels([]),
        layout=layout or claimed,
        anatomy=anatomy,
        weights=source.weights,
        prompts=prompts,
    )
    if family is not None and prompts is None and not family.count_classes(module):
        raise ModelError(f"{spec} has no classification head (no classes); give it one.")
    model = read(model, fixed_layout=layout is not None, unreadable=unreadable)
    if prompts:
        check_no_activation(activation, spec)
        return replace(model, activation="none")
    names = _labels(family, model, source.labels)
    detected = detect_activation(
        module, len(names), requested=activation, described=source.activation, spec=spec
    )
    return replace(model, labels=names, activation=detected)


def _prompts(source: LoadedModule, family: Any, tokenizer: Any) -> Prompts | None:
    """The text side of a model that compares images with text.

    Raises:
        ModelError: if a tokenizer is given for another model, or labels for such a model.
    """
    prompts = source.prompts
    if prompts is None and family is not None:
        prompts = family.read_prompts(source.module, tokenizer)
    if prompts is None and tokenizer is not None:
        raise ModelError(
            f"{source.spec} reads no text, so it has no use for a tokenizer; leave it out."
        )
    if prompts is not None and source.labels is not None:
        raise ModelError(
            f"{source.spec} compares images with text and has no classes to label; leave out "
            "labels, and give prompts as targets."
        )
    return prompts


def _check_differentiable(module: nn.Module, name: str) -> None:
    """See that a module has its weights, gradients and visible attention.

    Raises:
        ModelError: if it is offloaded, scripted or quantised.
    """
    if any(parameter.is_meta for parameter in module.parameters()):
        raise ModelError(
            f"{name} has parameters without data (on the meta device; accelerate offloads them "
            "so), and cannot be run as a whole; load it wholly on one device, without offloading."
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{name} is a scripted module, which hides its attention; pass the original."
        )
    for part in module.modules():
        home = type(part).__module__
        if "quantized" in home or home.startswith(("bitsandbytes", "torchao.")):
            raise ModelError(
                f"{name} is quantised ({type(part).__name__}), and quantised layers have no "
                "gradients; explain the model before quantisation, in float32 or bfloat16."
            )
    if any(not value.is_floating_point() for value in module.parameters()):
        raise ModelError(
            f"{name} is quantised (it has integer weights), which have no gradients; explain the "
            "model before quantisation, in float32 or bfloat16."
        )


def _preprocess(family: Any, module: nn.Module, preprocess: Preprocess | None) -> Preprocess:
    """The user's preprocessing or the library's, for as many channels as the module takes."""
    if family is None:
        assert preprocess is not None
        return with_channels(preprocess, module)
    channels = count_channels(module)
    if preprocess is None:
        preprocess = family.read_preprocess(module).of_library(channels)
    adapted: Preprocess = preprocess.for_model(channels)
    return adapted


def _labels(family: Any, model: Model, labels: Names | None) -> Labels:
    """The names of a model's classes: the user's, its library's, or numbers."""
    assert model.reading is not None
    classes = model.reading.outputs
    if labels is not None:
        return Labels.from_names(labels, classes, model.spec)
    if family is None:
        return Labels.numbered(classes)
    names: Labels = family.read_labels(model.module, classes)
    return names


def _call_forward(forward: Callable[[Any, Tensor], Any], module: nn.Module, images: Tensor) -> Any:
    return as_logits(forward(module, images))
