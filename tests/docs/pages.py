"""The code blocks of the documentation, and how they are run.

Python blocks of a page run in order, in one namespace and one empty folder. Pages that speak of a
user's own files and modules find them there (`write_files`, `given`), and a block that would
download weights is marked in the page by the line

    <!-- run: random weights -->

before it: `gradtoken.load` then builds the architecture without weights. Hub ids, whose
configuration would be downloaded, become the model type in `STAND_INS`, and the largest model a
small one. A mark that is not needed is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

import gradtoken
import gradtoken.models
from gradtoken.datasets import Scenes

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
STAND_INS = {
    "timm/vit_base_patch16_224": "timm/vit_tiny_patch16_224",
    "hf/google/vit-base-patch16-224": "hf/vit",
    "hf/facebook/dinov2-small-imagenet1k-1-layer": "hf/dinov2",
}
_BLOCK = re.compile(
    r"(?:<!-- run: (?P<mark>[^>]*?) -->\n)?"
    r"^(?P<fence>```+)(?P<kind>\w*)[^\n]*\n(?P<code>.*?)^(?P=fence)",
    re.DOTALL | re.MULTILINE,
)
MARKS = ("random weights",)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its mark if it has one, its code and its first line."""

    page: Path
    kind: str
    mark: str | None
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(page, m["kind"], m["mark"], m["code"], text.count("\n", 0, m.start("code")) + 1)
        for m in _BLOCK.finditer(text)
    ]


def run_python(page: Path) -> None:
    """Run a page's Python blocks; a failing line is named by page and number."""
    names: dict[str, Any] = {"__name__": "__main__", **given()}
    for block in blocks(page):
        if block.kind != "python":
            continue
        padded = "\n" * (block.line - 1) + block.code
        code = compile(padded, str(page), "exec", dont_inherit=True)
        if block.mark is None:
            exec(code, names)
            continue
        with random_weights() as loaded:
            exec(code, names)
        assert loaded, f"{page}:{block.line} is marked, but loads no pretrained weights"


@contextmanager
def random_weights() -> Iterator[list[str]]:
    """`gradtoken.load` without downloads; gives the names whose weights were left out."""
    load: Callable[..., Any] = gradtoken.models.load
    asked: list[str] = []

    def build(spec: str, **options: Any) -> Any:
        if spec != "demo" and options.get("checkpoint") is None:
            options["pretrained"] = False
            asked.append(spec)
        return load(STAND_INS.get(spec, spec), **options)

    gradtoken.models.load = build
    try:
        yield asked
    finally:
        gradtoken.models.load = load


def given() -> dict[str, Any]:
    """What pages take for granted: names of a user's own things."""
    module = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    return {
        "my_module": module,
        "my_class_names": ["cat", "dog"],
        "tensor": torch.zeros(1, 3, 224, 224),
    }


def write_maps(folder: Path) -> None:
    """What `gradtoken batch` writes for a user's pictures."""
    pictures = folder / "photos"
    pictures.mkdir()
    shutil.copy(folder / "photo.jpg", pictures)
    command = ["batch", "photos", "--model", "demo", "--targets", "all", "--out", "maps", "--quiet"]
    subprocess.run([sys.executable, "-m", "gradtoken", *command], cwd=folder, check=True)


def write_files(folder: Path) -> None:
    """A user's own pictures and checkpoint."""
    scenes = Scenes("test", objects=2)
    for index, name in enumerate(("photo.jpg", "a.jpg", "b.jpg")):
        scenes[index].image.save(folder / name)
    module = timm.create_model("vit_small_patch16_224", num_classes=3)
    save_file(module.state_dict(), folder / "mine.safetensors")
