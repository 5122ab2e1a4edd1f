"""(d) From JPEG files to maps, beside plain inference with the same decoding."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.cost.models import SIZES, build
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import gradtoken
from gradtoken.models import Model

WIDTH, HEIGHT = 640, 480


class _Files(Dataset[torch.Tensor]):
    """What anyone would write for inference."""

    def __init__(self, model: Model, paths: list[Path]) -> None:
        self._preprocess = model.preprocess.transform
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self._paths[index]) as image:
            return self._preprocess(image.convert("RGB"))


def measure(
    device: torch.device, dtype: torch.dtype, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Images per second of both, for each model, the predicted class of each image explained."""
    rows = []
    counts = {"ViT-Ti/16": 256, "ViT-S/16": 128, "ViT-B/16": 64}
    with tempfile.TemporaryDirectory() as folder:
        paths = _images(Path(folder), max(counts.values()))
        for label, name in SIZES.items():
            say(f"{label} from files")
            model = build(name, device, dtype)
            some = paths[: counts[label] * (8 if device.type == "cuda" else 1)]
            for workers in (0, 2):
                plain, ours = [], []
                for _ in range(max(2, rounds // 3)):
                    plain.append(_rate(partial(_infer, model, some, workers), len(some)))
                    ours.append(_rate(partial(_explain, model, some, workers), len(some)))
                ratios = sorted(o / p for o, p in zip(ours, plain, strict=True))
                rows.append(
                    {
                        "model": label,
                        "workers": workers,
                        "images": len(some),
                        "plain": float(np.median(plain)),
                        "explained": float(np.median(ours)),
                        "ratio": float(np.median(ratios)),
                    }
                )
    return rows


def _rate(run: Callable[[], None], count: int) -> float:
    begun = time.perf_counter()
    run()
    return count / (time.perf_counter() - begun)


def _infer(model: Model, paths: list[Path], workers: int) -> None:
    loader = DataLoader(_Files(model, paths), batch_size=16, num_workers=workers)
    with torch.no_grad():
        for batch in loader:
            model.module(batch.to(model.device, model.dtype)).argmax(-1).tolist()


def _explain(model: Model, paths: list[Path], workers: int) -> None:
    for one in gradtoken.explain_each(model, paths, workers=workers):
        assert one.tokens.shape[:2] == (1, 1)


def _images(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        coarse = rng.integers(0, 255, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        image.save(folder / f"{index:05d}.jpg", quality=90)
        paths.append(folder / f"{index:05d}.jpg")
    return paths
