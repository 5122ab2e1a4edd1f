"""Weights in files: safetensors that describe themselves or lie, pickles that want to run code."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from argparse import Namespace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch

import gradtoken
from fuzz import small
from fuzz.mutate import damaged, distorted, nested, value, word
from fuzz.target import Target
from gradtoken.models.checkpoint import fit, own_names, read_checkpoint

_RAN: list[str] = []
"""What a pickle got to run; must stay empty."""


def ran(*args: object) -> None:
    """What malicious pickles call."""
    _RAN.append(repr(args))


class _Malicious:
    def __init__(self, how: int) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        calls = (
            (ran, ("x",)),
            (eval, ("1/0",)),
            (os.mkdir, ("gradtoken-was-here",)),
            (print, ("x",)),
        )
        return calls[self.how % len(calls)]


@cache
def _state() -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in small.module().state_dict().items()}


def _description() -> dict[str, Any]:
    return {
        "architecture": dict(small.ARCHITECTURE),
        "classes": list(small.LABELS),
        "input_size": 16,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }


def _altered(state: dict[str, torch.Tensor], rng: Random) -> dict[str, Any]:
    found: dict[str, Any] = dict(state)
    for _ in range(rng.randrange(3)):
        key, kind = rng.choice(list(state)), rng.randrange(9)
        if kind == 0:
            found.pop(key, None)
        elif kind == 1:
            found[rng.choice(("module.", "_orig_mod.", "")) + word(rng)] = found.get(
                key, state[key]
            )
        elif kind == 2:
            found[key] = state[key].to(
                rng.choice(
                    (
                        torch.float16,
                        torch.int64,
                        torch.bool,
                        torch.float64,
                        torch.complex64,
                        torch.float8_e4m3fn,
                    )
                )
            )
        elif kind == 3:
            sides = [rng.choice((0, 1, 5, 8)) for _ in range(rng.randrange(4))]
            if 0 in sides and rng.random() < 0.5:
                sides[rng.randrange(len(sides))] = 1 << 34
                sides[rng.randrange(len(sides))] = 0
            found[rng.choice((key, "head.weight", "pos_embed"))] = torch.zeros(sides)
        elif kind == 4:
            found[key] = torch.full_like(state[key], float("nan"))
        elif kind == 5:
            found[key] = torch.zeros(1).expand(rng.choice((8, 1 << 36)), 8)
        elif kind == 6:
            found[key] = state[key].to_sparse()
        elif kind == 7:
            found[key] = torch.empty_like(state[key], device="meta")
        else:
            found[key] = value(rng)
    return found


def _safetensors(rng: Random, path: Path) -> None:
    description: Any = _description()
    for _ in range(rng.randrange(3)):
        description = distorted(description, rng)
    text = json.dumps(description)
    if rng.random() < 0.1:
        text = nested(rng)
    if rng.random() < 0.1:
        big = {"embed_dim": 1 << 30, "depth": 1 << 28, "num_classes": 1 << 34, "img_size": 1 << 22}
        key = rng.choice(list(big))
        text = json.dumps({**_description(), "architecture": {**small.ARCHITECTURE, key: big[key]}})
    state = {k: v for k, v in _altered(_state(), rng).items() if isinstance(v, torch.Tensor)}
    dense = {
        k: v.contiguous()
        for k, v in state.items()
        if not v.is_sparse and not v.is_meta and v.numel() < 1 << 20
    }
    text = text.encode("utf-8", "replace").decode()
    names = {k.encode("utf-8", "replace").decode(): v.clone() for k, v in dense.items()}
    data = safetensors.torch.save(names, {"gradtoken": text} if rng.random() < 0.9 else None)
    draw = rng.random()
    if draw < 0.4:
        data = _header(data, rng)
    elif draw < 0.6:
        data = damaged(data, rng)
    path.write_bytes(data)


def _header(data: bytes, rng: Random) -> bytes:
    """Another header before the same tensors."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for _ in range(rng.randrange(1, 3)):
        header = distorted(header, rng)
    text = json.dumps(header).encode("utf-8", "replace")
    lie = rng.choice((len(text), len(text), len(text), 0, 1 << 40, (1 << 64) - 1))
    return struct.pack("<Q", lie) + text + data[8 + length :]


def _pickled(rng: Random, path: Path) -> None:
    content: Any = _altered(_state(), rng)
    wrap = rng.randrange(9)
    if wrap == 0:
        content = {"state_dict": content, "epoch": 3}
    elif wrap == 8:
        front = rng.choice(("model.", "module.model.", "_orig_mod.", "net.", "model." * 20))
        state = {f"{front}{key}": part for key, part in content.items()}
        content = {"state_dict": state, "args": Namespace(lr=value(rng))}
    elif wrap == 1:
        content = {"model": {"x": value(rng)}, "state_dict_ema": content}
    elif wrap == 2:
        content = value(rng)
    elif wrap == 3:
        content = {**content, "x": _Malicious(rng.randrange(4))}
    buffer = io.BytesIO()
    if wrap == 4:
        pickle.dump(_Malicious(rng.randrange(4)), buffer, protocol=rng.randrange(5))
    elif wrap == 5:
        _bomb(buffer, content, rng)
    else:
        torch.save(content, buffer, _use_new_zipfile_serialization=rng.random() < 0.7)
    data = buffer.getvalue()
    if rng.random() < 0.4:
        data = damaged(data, rng)
    path.write_bytes(data)


def _bomb(buffer: io.BytesIO, content: Any, rng: Random) -> None:
    """A zip archive as torch writes it, with parts that unpack to much more than they are."""
    plain = io.BytesIO()
    torch.save(content, plain)
    with (
        zipfile.ZipFile(plain) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            held = old.read(name)
            if "/data/" in name and rng.random() < 0.05:
                held = bytes(rng.choice((1 << 10, 1 << 25)))
            new.writestr(name if rng.random() < 0.97 else "../../" + name, held)


def attempt(rng: Random, folder: Path) -> None:
    suffix = rng.choice((".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar"))
    path = folder / f"weights{suffix}"
    make = _safetensors if (suffix == ".safetensors") == (rng.random() < 0.97) else _pickled
    make(rng, path)
    try:
        if rng.random() < 0.02:
            gradtoken.load("timm/vit_tiny_patch16_224", checkpoint=path, device="cpu")
        elif suffix == ".safetensors" and rng.random() < 0.7:
            model = gradtoken.load(path, device="cpu")
            gradtoken.explain(model, torch.zeros(1, 3, 16, 16), 0)
        else:
            state, _ = read_checkpoint(path)
            fit(small.module(), own_names(state, small.module().state_dict()), "the model")
    finally:
        small.module().load_state_dict(_state())
        assert not _RAN, _RAN
        assert not Path("gradtoken-was-here").exists()


TARGET = Target(attempt, seconds=10, megabytes=256, instrumented=("gradtoken",))
