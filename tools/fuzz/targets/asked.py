"""Everything that can be handed to `explain` as targets, and `top_k`."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

import gradtoken
from fuzz import small
from fuzz.mutate import value, word
from fuzz.target import Target
from gradtoken.targets import Against, ClassTarget, Contrast, LogProb, Rivals

_IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


def _item(rng: Random) -> Any:
    kind = rng.randrange(16)
    near = rng.choice(
        (0, 1, 4, 4, 5, -1, 10**12, True, 1.0, "cat", "DOG", "Tiger_Cat", "dg", "3", word(rng))
    )
    other = rng.choice((0, 2, "cat", "dog", None, value(rng)))
    if kind < 4:
        return near
    if kind == 4:
        return gradtoken.contrast(near, other)
    if kind == 5:
        return gradtoken.log_prob(near)
    if kind == 6:
        return rng.choice((ClassTarget, LogProb))(near)
    if kind == 7:
        return Contrast(near, other)
    if kind == 8:
        others = rng.choice(((), (0,), (0, 0, 1), (9,), [1, 2], None, value(rng)))
        return Against(near, others, rng.choice((1.0, 0.0, math.nan, 1e300, "x", None)))
    if kind == 9:
        return rng.choice(
            (
                lambda z: z[0],
                lambda z: z,
                lambda z: 1.0,
                lambda z: None,
                lambda z: z.detach()[0],
                lambda z: z[0] * math.nan,
                lambda z: z.sum() * 0,
                lambda z: z.new_zeros(()),
                lambda z: z[:1],
                lambda z: z[0].to(torch.complex64),
                lambda z: z.max().long(),
            )
        )
    if kind == 10:
        return rng.choice(list(gradtoken.text("a cat", "a dog")))
    if kind == 11:
        return Rivals()
    if kind == 12:
        return rng.choice(
            (
                np.int64(2),
                np.float32(2),
                np.str_("cat"),
                np.bool_(True),
                torch.tensor(3),
                torch.tensor(3.5),
                torch.tensor(True),
                torch.tensor(2, device="meta"),
            )
        )
    if kind == 13:
        return rng.choice(
            (
                np.arange(3),
                np.zeros(0),
                np.zeros((2, 2), int),
                torch.arange(4),
                torch.ones(2, 2),
                torch.tensor([math.nan]),
                np.array(["cat", "dog"]),
            )
        )
    return value(rng)


def attempt(rng: Random, folder: Path) -> None:
    draw = rng.random()
    if draw < 0.4:
        targets: Any = _item(rng)
    elif draw < 0.7:
        targets = [_item(rng) for _ in range(rng.randrange(5))]
    elif draw < 0.8:
        targets = tuple(_item(rng) for _ in range(2))
    elif draw < 0.97:
        targets = [
            [_item(rng) for _ in range(rng.choice((0, 1, 2)))]
            for _ in range(rng.choice((1, 2, 2, 2, 3)))
        ]
    elif draw < 0.985:
        shape = rng.choice(((2, 5), (2, 5), (5,), (2, 4), (1, 5), (2, 2, 5), (0, 5)))
        marks = np.random.default_rng(rng.randrange(1 << 30)).random(shape) < rng.random()
        kind = rng.choice((bool, np.float32, np.int64, np.float64, np.uint8))
        targets = marks.astype(kind) if rng.random() < 0.5 else torch.from_numpy(marks.astype(kind))
    else:
        targets = rng.choice((None, "all", "ALL", [[[1]]], {1, 2}, range(3), iter([1]), object()))
    top_k: Any = rng.choice((1, 1, 5, 6, 0, -1, 1.5, None, "2", True, 10**30))
    preset = rng.choice(("faithful", "contrastive"))
    found = gradtoken.explain(small.model(), _IMAGES, targets, top_k=top_k, preset=preset)
    assert bool(torch.isfinite(found.tokens).all())
    assert found.tokens.shape[:2] == (2, found.targets.count)
    found.to_dict()


TARGET = Target(attempt, seconds=10, megabytes=64)
