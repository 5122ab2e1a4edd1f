"""Writing explanations to folders, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from gradtoken import display
from gradtoken.errors import OutputError
from gradtoken.explanation import Explanation, token_array

MANIFEST = "manifest.json"


def save(explanation: Explanation, directory: Path, style: display.Style) -> list[Path]:
    """Write each image's files; see `Explanation.save`."""
    if len(explanation) == 1:
        return [_save_one(explanation, directory, style)]
    names = unique_names([_name(source.path, i) for i, source in enumerate(explanation.sources)])
    return [
        _save_one(one, directory / name, style)
        for one, name in zip(explanation, names, strict=True)
    ]


def _save_one(explanation: Explanation, directory: Path, style: display.Style) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".gradtoken-", dir=directory))
    except OSError as error:
        raise OutputError(f"cannot write to {directory}: {_reason(error)}.") from None
    try:
        _write(explanation, work, style)
        _remove_earlier(directory)
        for path in sorted(work.iterdir(), key=lambda path: path.name == MANIFEST):
            os.replace(path, directory / path.name)
    except OSError as error:
        raise OutputError(
            f"cannot write to {directory}: {_reason(error)}; nothing was left half-written."
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return directory


def _remove_earlier(directory: Path) -> None:
    """Remove an earlier result's manifest, then the overlays it lists.

    A folder without a manifest is incomplete, so an interruption never leaves a false one.
    """
    try:
        listed = list(json.loads((directory / MANIFEST).read_text("utf-8"))["files"]["overlays"])
    except (OSError, ValueError, KeyError, TypeError):
        listed = []
    (directory / MANIFEST).unlink(missing_ok=True)
    for name in listed:
        if isinstance(name, str) and Path(name).name == name and name.endswith(".png"):
            (directory / name).unlink(missing_ok=True)


def _write(explanation: Explanation, work: Path, style: display.Style) -> None:
    labels = explanation.labels[0]
    overlays = [f"{k:02d}_{safe_name(label)}.png" for k, label in enumerate(labels)]
    for k, name in enumerate(overlays):
        explanation.overlay(k, style=style).save(work / name)
    explanation.figure(style=style).savefig(work / "summary.png", dpi=130)
    with (work / "tokens.npz").open("wb") as file:
        np.savez_compressed(file, tokens=token_array(explanation)[0], labels=np.array(labels))
    record = explanation.to_dict()[0]
    record["files"] = {"overlays": overlays, "summary": "summary.png", "tokens": "tokens.npz"}
    (work / MANIFEST).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")


def safe_name(text: str) -> str:
    """A label as part of a file name: letters, digits, dots and dashes, at most 60 of them."""
    return re.sub(r"[^\w.]+", "-", text.split(",")[0]).strip("-.")[:60] or "target"


def unique_names(names: list[str]) -> list[str]:
    """The names with -2, -3, … after those already taken."""
    taken: set[str] = set()
    out = []
    for name in names:
        candidate, count = name, 1
        while candidate.casefold() in taken:
            count += 1
            candidate = f"{name}-{count}"
        taken.add(candidate.casefold())
        out.append(candidate)
    return out


def _name(path: Path | None, index: int) -> str:
    return safe_name(path.stem) if path else f"image-{index:04d}"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
