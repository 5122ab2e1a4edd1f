"""Names and options of methods: refused before the work, or honoured."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

import gradtoken
from fuzz import small
from fuzz.mutate import value, word
from fuzz.target import Target
from gradtoken.attribution import make_method, methods

_IMAGE = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
_COUNTS = (
    "samples",
    "steps",
    "masks",
    "window",
    "stride",
    "cell",
    "clusters",
    "batch_size",
    "batch",
)
"""Options whose size is how long the user wants to wait."""


@cache
def _kinds() -> dict[str, Any]:
    return methods()


def _value(rng: Random, name: str) -> Any:
    draw = rng.random()
    if draw < 0.25:
        return rng.choice((0, 1, 2, -1, 0.5, 1.0, True, None, 1e-9, 1e9, -0.0))
    if draw < 0.5:
        near = (
            "all",
            "half",
            "last",
            "stream",
            "full",
            "auto",
            "near",
            "token",
            "attention",
            "head",
        )
        more = (
            "layer",
            "final",
            "content",
            "product",
            "auto",
            "logit",
            "log_prob",
            "rivals(2)",
            "others",
        )
        last = (
            "rivals(0)",
            "rivals(2, 1e9)",
            "rivals(99999999999999999999)",
            "blur",
            "black",
            "mean",
        )
        return rng.choice((*near, *more, *last))
    if draw < 0.65:
        return rng.choice(
            ([0], [-1], [0, 0], [9], [], [None], [[0]], [0.0], (1,), {0}, [True], range(2))
        )
    found = value(rng)
    big = isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) > 64
    return 3 if big and any(part in name for part in _COUNTS) else found


def attempt(rng: Random, folder: Path) -> None:
    name = rng.choice(list(_kinds())) if rng.random() < 0.95 else word(rng)
    kind = _kinds().get(name)
    known = [field.name for field in fields(kind)] if kind else []
    trial = dict(kind.trial) if kind else {}
    names = [
        rng.choice([*known, *known, "preset", "nonsense"])
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))
    ]
    options = {**trial, **{option: _value(rng, option) for option in names}}
    if kind is not None and kind.presets and rng.random() < 0.2:
        options["preset"] = rng.choice(list(kind.presets))
    method = make_method(name, **options)
    found = gradtoken.explain(small.model(), _IMAGE, [0, 1], method=method)
    assert bool(torch.isfinite(found.tokens).all())
    found.to_dict()


TARGET = Target(attempt, seconds=15, megabytes=256)
