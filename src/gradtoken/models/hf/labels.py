"""The classes, labels and prompts of a transformers model."""

from __future__ import annotations

from typing import Any

from gradtoken.models.hf.anatomy import compares_text
from gradtoken.models.hf.text import HFPrompts
from gradtoken.targets.labels import Labels


def count_classes(module: Any) -> int:
    """How many classes the head has."""
    return int(module.config.num_labels)


def read_labels(module: Any, classes: int) -> Labels:
    """The names in the model's config."""
    names = module.config.id2label or {}
    return Labels([names.get(index, f"class {index}") for index in range(classes)])


def read_prompts(module: Any, tokenizer: Any = None) -> HFPrompts | None:
    """The text side, where there is one, with a tokenizer or the one beside the model's files."""
    return HFPrompts(module, tokenizer) if compares_text(module) else None
