"""The classes and labels of a timm module."""

from __future__ import annotations

from functools import cache
from typing import Any

import timm
import timm.data
from torch import nn

from gradtoken.targets.labels import Labels


def count_classes(module: Any) -> int:
    """How many classes the head has, also where another was put in place of timm's own."""
    head = module.get_classifier() if hasattr(module, "get_classifier") else None
    head = head[0] if isinstance(head, tuple) else head
    parts = head.modules() if isinstance(head, nn.Module) else ()
    sizes = [part.out_features for part in parts if isinstance(part, nn.Linear)]
    return int(sizes[-1] if sizes else getattr(module, "num_classes", 0))


def read_labels(module: Any, classes: int) -> Labels:
    """ImageNet names where the module has as many classes as an ImageNet subset, else numbers."""
    pretrained = getattr(module, "pretrained_cfg", None) or {}
    subset = timm.data.infer_imagenet_subset({"num_classes": classes})
    if subset is None or pretrained.get("num_classes") != classes:
        return Labels.numbered(classes)
    return _imagenet_labels(subset, classes)


@cache
def _imagenet_labels(subset: str, classes: int) -> Labels:
    """Read once: timm reads files of all 21,841 names for each subset, which takes longer than a
    small model's forward.
    """
    info = timm.data.ImageNetInfo(subset)
    return Labels([info.index_to_description(index) for index in range(classes)])


def read_prompts(module: Any, tokenizer: Any = None) -> None:
    """These models read no text."""
