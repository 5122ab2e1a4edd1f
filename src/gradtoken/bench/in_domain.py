"""Models of a run that were fine-tuned on images with a deleted part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from gradtoken.errors import ModelError
from gradtoken.models import load
from gradtoken.models.fingerprint import preprocessing_sha256
from gradtoken.models.load import describes_itself
from gradtoken.models.model import Model

NEEDS_TUNED = {
    "idsds": "--in-domain-model, a model fine-tuned with one cell deleted in half of its images",
    "f-fidelity": "--f-fidelity-model, a model fine-tuned with a tenth of the pixels deleted",
}
"""Groups of metrics that ask a fine-tuned model, and the option that names it."""


Groups: TypeAlias = Sequence[str] | Mapping[str, Model | None]
"""Names of groups of metrics, with or without the fine-tuned model that each asks."""


def tuned_of(groups: Groups) -> dict[str, Model]:
    """The fine-tuned models by the group that asks them."""
    pairs = groups.items() if isinstance(groups, Mapping) else ()
    return {name: model for name, model in pairs if model is not None}


def tuned_models(
    model: Model,
    groups: Sequence[str],
    weights: Mapping[str, str | None],
    *,
    image_size: int | tuple[int, int] | None = None,
) -> dict[str, Model]:
    """The fine-tuned models that some groups of metrics ask.

    Args:
        model: the model that is explained; the bundled one has an in-domain model.
        groups: names of groups of metrics.
        weights: by group, as for `load_in_domain`; None where none was given.
        image_size: (height, width) in pixels that the model was loaded with, or None.

    Raises:
        ModelError: as for `load_in_domain`.
    """
    bundled = (model.spec, model.weights) == ("demo", "bundled")
    named = {**({"idsds": "demo-in-domain"} if bundled else {}), **_given(weights)}
    return {
        group: load_in_domain(model, named[group], image_size=image_size)
        for group in groups
        if group in named
    }


def _given(weights: Mapping[str, str | None]) -> dict[str, str]:
    return {group: each for group, each in weights.items() if each is not None}


def load_in_domain(
    model: Model, weights: str, *, image_size: int | tuple[int, int] | None = None
) -> Model:
    """A model that was fine-tuned from another one.

    Args:
        model: the model that it was fine-tuned from.
        weights: a file of weights for the same architecture; of a model that brings its own
            weights ("demo", a file, "hf/ID"), the spec of the fine-tuned one.
        image_size: (height, width) in pixels that the model was loaded with, or None.

    Raises:
        ModelError: weights that cannot be had or do not fit, or a model of other classes or
            another preprocessing.
    """
    own = describes_itself(model.spec) or model.spec.startswith("hf/")
    tuned = load(
        weights if own else model.spec,
        checkpoint=None if own else weights,
        device=model.device,
        dtype=model.dtype,
        image_size=image_size,
        activation=model.activation,
    )
    if list(tuned.labels) != list(model.labels):
        raise _another(model, weights, "has other classes")
    if preprocessing_sha256(tuned) != preprocessing_sha256(model):
        raise _another(model, weights, "preprocesses images in another way")
    return tuned


def _another(model: Model, weights: str, how: str) -> ModelError:
    return ModelError(
        f"{weights} {how} than {model.spec}; give a model that was fine-tuned from it "
        "(tools/finetune_in_domain.py makes one)."
    )
