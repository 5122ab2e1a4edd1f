"""What can be typed after `gradtoken`."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from typer.testing import CliRunner

import gradtoken.models
from fuzz import small
from fuzz.mutate import damaged, word
from fuzz.target import Target
from gradtoken.cli.app import app
from gradtoken.errors import GradTokenError

_COMMANDS = ("explain", "compare", "coupling", "bench", "check", "demo", "models", "methods")
_OPTIONS = [
    "--model",
    "--target",
    "--text",
    "--top-k",
    "--method",
    "--option",
    "--out",
    "--checkpoint",
    "--device",
    "--dtype",
    "--random-weights",
    "--image-size",
    "--data",
    "--methods",
    "--metrics",
    "--limit",
    "--slow-limit",
    "--every-image",
    "--seed",
    "--objects",
    "--json",
    "--help",
    "--version",
    "-m",
    "-t",
    "-o",
    "-h",
    "--nonsense",
    "--",
    "--all",
]
_FLAGS = (
    "--random-weights",
    "--every-image",
    "--json",
    "--help",
    "-h",
    "--version",
    "--all",
    "--",
)
_VALUES = (
    "demo",
    "timm/nothing",
    "timm/vit_base_patch16_224.nothing",
    "hf/nothing",
    "hf/../x",
    "open_clip/nothing/x",
    "torchvision/nothing",
    "nothing.safetensors",
    "cat",
    "3",
    "-1",
    "99999999999999999999",
    "0",
    "1",
    "2",
    "1.5",
    "nan",
    "gradtoken",
    "rollout",
    "gradtoken:beta=0.5,rollout",
    "gradtoken:::,",
    "preset=sharp",
    "beta=NaN",
    "beta=1e999",
    "layers=[[[[",
    "layers=[0]",
    "=",
    "x" * 300 + "=1",
    "scenes",
    "scenes:1",
    "scenes:99999999999999999999999",
    "voc:.",
    "coco:.",
    "folder:.",
    "imagenet-seg:good.png",
    "localization",
    "coupling,localization",
    "cpu",
    "cuda:99",
    "meta",
    "mps",
    "xla",
    "hpu",
    "float16",
    "bfloat16",
    "int8",
    "16",
    "16x16",
    "16x",
    "xx",
    "-4x4",
    "1000000000",
    "good.png",
    "bad.png",
    "pictures",
    "empty",
    "*.png",
    "**/*",
    "[",
    "good.png/x",
    "out",
    "/proc/self/mem",
    "/dev/null/x",
)


@cache
def _load() -> Any:
    return gradtoken.models.load


def _tiny(spec: Any, **options: Any) -> Any:
    """`load`, but for the demo's model, in whose place a quicker one is explained."""
    return small.model() if spec == "demo" else _load()(spec, **options)


def _prepare(rng: Random) -> None:
    Path("good.png").write_bytes(small.picture("PNG", 20, 16))
    Path("bad.png").write_bytes(damaged(Path("good.png").read_bytes(), rng))
    Path("pictures").mkdir()
    Path("empty").mkdir()
    for name in ("a.png", "con.png", "ａ.png"):
        os.link("good.png", f"pictures/{name}")


def _value(rng: Random) -> str:
    return rng.choice(_VALUES) if rng.random() < 0.85 else word(rng)


def _arguments(rng: Random) -> list[str]:
    command = rng.choice(_COMMANDS) if rng.random() < 0.97 else _value(rng)
    found = [command]
    if command in ("explain", "compare", "coupling"):
        found += [rng.choice(("good.png", "bad.png", "pictures", _value(rng)))]
        found += ["--model", "demo"] if rng.random() < 0.5 else []
    if command == "bench":
        found += ["--limit", rng.choice(("1", "0"))]
        found += ["--methods", rng.choice(("gradtoken", "rollout", _value(rng)))]
        found += ["--metrics", rng.choice(("localization", "coupling", _value(rng)))]
        found += ["--data", rng.choice(("folder:.", "voc:.", "coco:.", _value(rng)))]
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        option = rng.choice(_OPTIONS)
        found.append(option)
        if option not in _FLAGS:
            found.append(_value(rng))
    if rng.random() < 0.1:
        found.append(_value(rng))
    return found


def attempt(rng: Random, folder: Path) -> None:
    before, load = Path.cwd(), _load()
    os.chdir(folder)
    try:
        arguments = _arguments(rng)
        if arguments[0] != "demo":
            gradtoken.models.load = _tiny  # type: ignore[assignment]
        _prepare(rng)
        kept = Path("good.png").read_bytes()
        result = CliRunner().invoke(app, arguments)
        assert Path("good.png").read_bytes() == kept
    finally:
        gradtoken.models.load = load
        os.chdir(before)
    error = result.exception
    if isinstance(error, GradTokenError):
        raise error
    if error is not None and not isinstance(error, SystemExit):
        raise AssertionError(f"{arguments} let {error!r} out") from error
    assert result.exit_code in (0, 1, 2), (arguments, result.exit_code)
    if result.exit_code:
        raise GradTokenError(" ".join(result.output.split()[-30:]) or f"exit {result.exit_code}")


TARGET = Target(attempt, seconds=20, megabytes=512)
