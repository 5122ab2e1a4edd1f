"""The provenance of an explanation as plain data for manifests."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gradtoken.attribution import Method
from gradtoken.models.model import Model


def provenance(model: Model, method: Method) -> dict[str, Any]:
    """The versions of the software, the model, and the method with its options."""
    return {
        "versions": dict(_versions()),
        "model": {
            "spec": model.spec,
            "weights": model.weights,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
            "activation": model.probability,
        },
        "method": {"name": method.name, "options": method.options_for(model.activation)},
    }


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in (
        "gradtoken",
        "torch",
        "timm",
        "transformers",
        "torchvision",
        "open_clip_torch",
        "numpy",
        "pillow",
    ):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
