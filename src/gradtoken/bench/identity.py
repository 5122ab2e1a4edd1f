"""What the numbers of a run depend on: a run resumes only where none of it has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from gradtoken.attribution import Method
from gradtoken.bench.class_map import ClassMap
from gradtoken.bench.in_domain import Groups, tuned_of
from gradtoken.datasets.sample import Sample
from gradtoken.models.fingerprint import preprocessing_sha256, weights_sha256
from gradtoken.models.model import Model
from gradtoken.models.zero_shot import PromptHead

_SOFTWARE = (
    "gradtoken",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "open_clip_torch",
    "captum",
    "scikit-learn",
    "scipy",
    "numpy",
    "pillow",
)


def identity(
    model: Model,
    methods: Mapping[str, Method],
    groups: Groups,
) -> dict[str, Any]:
    """The model, the methods and the metrics of a run, as plain data.

    Args:
        model: its weights, preprocessing and labels are fingerprinted, so that another checkpoint
            at the same path is another model.
        methods: by name.
        groups: names of groups of metrics; a mapping also gives the fine-tuned model that a group
            asks.
    """
    forward = model.anatomy.forward
    prompts = {"prompts": list(forward.prompts)} if isinstance(forward, PromptHead) else {}
    return {
        **prompts,
        "model": model.spec,
        "weights": model.weights,
        "weights_sha256": weights_sha256(model),
        "preprocessing_sha256": preprocessing_sha256(model),
        "labels_sha256": _sha256(list(model.labels)),
        "dtype": str(model.dtype),
        "device": model.device.type,
        "activation": model.activation,
        "methods": {name: method.options_for(model.activation) for name, method in methods.items()},
        "metrics": list(groups),
        "tuned_sha256": {group: weights_sha256(each) for group, each in tuned_of(groups).items()},
        "software": software(),
    }


def run_sha256(settings: Mapping[str, Any], *, slow: bool, class_map: ClassMap | None) -> str:
    """SHA-256 of a run.

    Args:
        settings: its `identity`.
        slow: whether slow metrics and methods are measured too.
        class_map: by which the classes are chosen; None if they are by name.
    """
    chosen = {} if class_map is None else {"class_map": class_map.to_dict()}
    return _sha256({**settings, **chosen, "slow": slow})


def sample_sha256(sample: Sample) -> str:
    """SHA-256 of an image's pixels and of its annotations."""
    annotations = [
        sample.image.mode,
        sample.image.size,
        sample.names,
        sample.label,
        sample.unnamed,
    ]
    digest = hashlib.sha256(json.dumps(annotations).encode())
    digest.update(sample.image.tobytes())
    for mask in (sample.masks, sample.ignore):
        digest.update(str(None if mask is None else mask.shape).encode())
        digest.update(b"" if mask is None else np.packbits(mask).tobytes())
    return digest.hexdigest()


@cache
def software() -> dict[str, str]:
    """Versions of the libraries that the numbers depend on."""
    versions = {}
    for name in _SOFTWARE:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
