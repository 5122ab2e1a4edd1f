"""Writing of explanations to folders: complete, or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from gradtoken import atomic
from gradtoken.errors import OutputError
from gradtoken.explanation import style as display
from gradtoken.explanation.interface import ExplanationLike

MANIFEST = "manifest.json"

_OVERLAY = re.compile(r"\d{2,}_[\w.-]{1,64}\.png")
"""Names of overlays that `_write` makes; no other files are removed."""
_LARGEST_MANIFEST = 1 << 26
_LONGEST = 1000
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))]
)
"""Names of devices on Windows, with any suffix."""


def save(explanation: ExplanationLike, directory: Path, style: display.Style) -> list[Path]:
    """Write each image's files; see `Explanation.save`."""
    if len(explanation) == 1:
        return [_save_item(explanation, directory, style)]
    names = unique_names([_name(source.path, i) for i, source in enumerate(explanation.sources)])
    for name in names:
        check_not_link(directory / name)
    return [
        _save_item(item, directory / name, style)
        for item, name in zip(explanation, names, strict=True)
    ]


def check_not_link(folder: Path) -> None:
    """Check that a folder to write to is no link to another.

    Raises:
        OutputError: it is a link.
    """
    try:
        target = os.readlink(folder)
    except (OSError, ValueError):  # not there, or no link
        return
    raise OutputError(
        f"{folder} is a link to {target}, and results are not written through links; remove it or "
        "choose another folder."
    )


def _save_item(explanation: ExplanationLike, directory: Path, style: display.Style) -> Path:
    work: Path | None = None
    created = complete = False
    try:
        try:
            created = not directory.exists()
            directory.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=".gradtoken-", dir=directory))
        except (OSError, ValueError) as error:  # a name with a NUL byte is a ValueError
            raise OutputError(f"cannot write to {directory}: {_reason(error)}.") from None
        _write(explanation, work, style)
        _remove_earlier(directory)
        for path in sorted(work.iterdir(), key=lambda path: path.name == MANIFEST):
            atomic.move(path, directory / path.name)
        complete = True
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write to {directory}: {_reason(error)}; nothing was left half-written."
        ) from None
    finally:
        if work is not None:
            shutil.rmtree(directory if created and not complete else work, ignore_errors=True)
    return directory


def _remove_earlier(directory: Path) -> None:
    """Remove an earlier result's manifest, then the overlays it lists.

    A folder without a manifest is incomplete, so an interruption never leaves a false one.
    """
    listed = _listed_overlays(directory / MANIFEST)
    (directory / MANIFEST).unlink(missing_ok=True)
    for name in listed:
        if isinstance(name, str) and _OVERLAY.fullmatch(name):
            (directory / name).unlink(missing_ok=True)


def _listed_overlays(manifest: Path) -> list[Any]:
    """The overlays in an earlier manifest, if it is a regular file of credible size and content."""
    try:
        status = manifest.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_MANIFEST:
            return []
        return list(json.loads(manifest.read_text("utf-8"))["files"]["overlays"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _write(explanation: ExplanationLike, work: Path, style: display.Style) -> None:
    labels = explanation.labels[0]
    overlays = [f"{k:02d}_{safe_name(label)}.png" for k, label in enumerate(labels)]
    for k, name in enumerate(overlays):
        explanation.overlay(k, style=style).save(work / name)
    explanation.figure(style=style).savefig(work / "summary.png", dpi=130)
    with (work / "tokens.npz").open("wb") as file:
        np.savez_compressed(file, tokens=token_array(explanation)[0], labels=np.array(labels))
    record = explanation.to_dict()[0]
    record["files"] = {"overlays": overlays, "summary": "summary.png", "tokens": "tokens.npz"}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (work / MANIFEST).write_bytes(text.encode("utf-8", "backslashreplace"))


def safe_name(text: str) -> str:
    """A label as part of a file name on any system.

    Letters, digits, dots and dashes, at most 60 of them; letters that Unicode knows as forms of
    others become those, so names that look alike are alike; names that Windows keeps for devices
    get an underscore.
    """
    first = unicodedata.normalize("NFKC", text[:_LONGEST].split(",", maxsplit=1)[0])
    name = re.sub(r"[^\w.]+", "-", first).strip("-.")[:60].rstrip("-.") or "target"
    return f"_{name}" if name.split(".")[0].casefold() in _DEVICES else name


def unique_names(names: list[str]) -> list[str]:
    """The names, with -2, -3, … after repeated ones."""
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


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def token_array(explanation: ExplanationLike) -> np.ndarray[Any, Any]:
    """The raw tokens of an explanation as a float32 array (B, K, h, w)."""
    values: np.ndarray[Any, Any] = explanation.tokens.detach().cpu().numpy()
    return values
