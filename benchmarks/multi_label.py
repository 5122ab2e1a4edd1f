"""What should a class of a multi-label model be set against? Candidates for its rivals.

    python benchmarks/multi_label.py --scenes 150
    python benchmarks/multi_label.py --coco COCO --weights deit_tiny_patch16_224.safetensors

No multi-label model comes with gradtoken, so one is made: the blocks of a trained model stay as
they are, and a linear head on the class token is trained by binary cross-entropy (the bundled
models on train scenes; a timm model on COCO photographs, where each photograph is explained with a
head whose training it took no part in). Measured are classes that are in the image and that the
head recognises (p > 0.5). docs/multi-label.md has the rule by which the default is chosen.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.datasets import COCO, Sample, Scenes, SceneSamples
from gradtoken.metrics import mean_interval
from gradtoken.metrics.class_sensitivity import present_coupling
from gradtoken.metrics.localization import Coverage, token_ap
from gradtoken.models import Model
from gradtoken.targets import ClassTarget, Targets
from gradtoken.trace.record import record

METRICS = ("token_ap", "share", "pointing", "energy", "coupling", "positive", "negative")
"""Positive: the share of a map's absolute relevance that is positive; negative: below `LITTLE`."""
LITTLE = 0.05
LIKELY = 0.5
LEAST_COVERED = 0.01
"""The share of the image that an object has at least."""
DEEP = Path(__file__).parent / "models" / "deep.safetensors"


FIRST = "no rivals"
CANDIDATES: dict[str, dict[str, Any]] = {
    "no rivals": {"rivals": 0},
    "likelihood": {"rivals": 12, "rival_weight": "likelihood"},
    "overlap": {"rivals": 12, "rival_weight": "overlap"},
    "v0.1": {"preset": "v0.1"},
}
"""Options of GradToken."""


@dataclass(frozen=True)
class Row:
    """One candidate's metrics on one class of one image."""

    image: str
    candidate: str
    metrics: dict[str, float]


def rows_of(model: Model, sample: Sample) -> Iterator[Row]:
    """The metrics of every candidate on one image's recognised classes."""
    pixels = model.preprocess(sample.image)[None]
    trace = record(model, pixels)
    logits = trace.logits[0]
    coverage, present = visible_classes(model, sample, trace.grid, tuple(pixels.shape[-2:]))
    kept = [k for k, label in enumerate(present) if float(logits[label]) > 0]
    if not kept:
        return
    classes = [present[k] for k in kept]
    targets = Targets([[ClassTarget(label) for label in classes]])
    for name, options in CANDIDATES.items():
        maps = make_method("gradtoken", **options)(trace, targets)[0].detach().double()
        of_class = metrics_of(maps, coverage, kept, classes)
        for k in range(len(classes)):
            yield Row(sample.id, name, {metric: float(v[k]) for metric, v in of_class.items()})


def metrics_of(
    maps: Float[Tensor, "classes tokens"], coverage: Coverage, kept: list[int], classes: list[int]
) -> dict[str, Any]:
    """Each metric of each class's map; share is among all the objects present."""
    several = len(coverage.tokens) > 1
    whole = torch.zeros(len(coverage.tokens), maps.shape[1], dtype=maps.dtype)
    whole[kept] = maps
    by_object = {name: value[kept] for name, value in coverage.metrics(whole[:, None]).items()}
    positive = maps.clamp_min(0).sum(1) / maps.abs().sum(1)
    together = present_coupling(maps, classes) if len(classes) > 1 else np.nan
    return {
        "token_ap": token_ap(whole, coverage.tokens)[kept],
        "share": by_object["share"] if several else [np.nan] * len(kept),
        "pointing": by_object["pointing"],
        "energy": by_object["energy"],
        "coupling": [together] * len(kept),
        "positive": positive,
        "negative": (positive < LITTLE).double(),
    }


def visible_classes(
    model: Model, sample: Sample, grid: tuple[int, int], size: tuple[int, int]
) -> tuple[Coverage, list[int]]:
    """The objects that the model's input shows and its head knows: coverage and class ids."""
    from PIL import Image

    box = tuple(model.preprocess.box(sample.image.size))
    assert sample.masks is not None
    masks, labels = [], []
    for name, mask in zip(sample.names, sample.masks, strict=True):
        if name not in model.labels:
            continue
        drawn = Image.fromarray(mask.astype(np.uint8)).transform(
            (size[1], size[0]), Image.Transform.EXTENT, box, Image.Resampling.NEAREST
        )
        inside = torch.from_numpy(np.asarray(drawn) > 0)
        if float(inside.double().mean()) >= LEAST_COVERED:
            masks.append(inside)
            labels.append(model.labels.find(name))
    if not masks:
        return Coverage(torch.zeros(0, grid[0] * grid[1])), []
    return Coverage.of_masks(torch.stack(masks), grid), labels


def features(model: Model, samples: list[Sample]) -> Float[Tensor, "images dim"]:
    """What the head reads of each image."""
    rows = []
    for sample in track(samples, "features", console=Console(stderr=True)):
        with torch.no_grad():
            pixels = model.preprocess(sample.image)[None]
            tokens = model.module.forward_features(pixels)
            rows.append(model.module.forward_head(tokens, pre_logits=True)[0])
    return torch.stack(rows)


def with_head(
    model: Model, names: list[str], inputs: Tensor, present: Tensor, seed: int, decay: float
) -> Model:
    """The model with a linear head trained by binary cross-entropy."""
    mean, spread = inputs.mean(0), inputs.std(0)
    torch.manual_seed(seed)
    head = nn.Linear(inputs.shape[1], len(names))
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    for _ in range(500):
        loss = F.binary_cross_entropy_with_logits(head((inputs - mean) / spread), present)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        head.weight /= spread
        head.bias -= head.weight @ mean
    module = copy.copy(model.module)
    module._modules = {**model.module._modules, "head": head}
    return gradtoken.wrap(module, preprocess=model.preprocess, labels=names, activation="sigmoid")


def on_scenes(model: Model, count: int, train: int, seed: int) -> list[Row]:
    """A multi-label head on a bundled model, measured on scenes of an unseen art style."""
    scenes = Scenes("train", 112, (1, 3), seed=seed)
    shown = [scenes[index] for index in range(train)]
    present = torch.zeros(train, len(scenes.classes))
    for row, scene in enumerate(shown):
        present[row, list(scene.labels)] = 1
    samples = [Sample(str(i), scene.image) for i, scene in enumerate(shown)]
    headed = with_head(
        model, list(scenes.classes), features(model, samples), present, seed, decay=0.01
    )
    test = SceneSamples(Scenes("test", objects=(2, 3), seed=seed), count=count)
    return [row for sample in track(test, "scenes", count) for row in rows_of(headed, sample)]


def on_coco(model: Model, root: Path, folds: int, least: int, seed: int) -> list[Row]:
    """Heads on COCO photographs, each photograph measured with one that never saw it."""
    samples = list(COCO(root))
    names = sorted({name for sample in samples for name in sample.names})
    present = torch.tensor([[float(n in s.names) for n in names] for s in samples])
    known = (present.sum(0) >= least).tolist()
    names = [name for name, keep in zip(names, known, strict=True) if keep]
    present, inputs = present[:, torch.tensor(known)], features(model, samples)
    part = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed)) % folds
    rows = []
    for fold in range(folds):
        away = part != fold
        headed = with_head(model, names, inputs[away], present[away], seed, decay=1.0)
        for index in track((~away).nonzero()[:, 0].tolist(), f"fold {fold + 1} of {folds}"):
            rows += list(rows_of(headed, samples[index]))
    return rows


def table(title: str, rows: list[Row]) -> list[str]:
    """Means, and paired differences to the first candidate, with 95% intervals over images."""
    images = np.array([row.image for row in rows if row.candidate == FIRST])
    values = {
        name: {f: np.array([r.metrics[f] for r in rows if r.candidate == name]) for f in METRICS}
        for name in CANDIDATES
    }
    head = f"{title}: {len(set(images))} images, {len(images)} classes"
    lines = [f"| {head} | {' | '.join(METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    for minus in (None, FIRST):
        for name in CANDIDATES:
            if name == minus:
                continue
            cells = []
            for metric in METRICS:
                value = values[name][metric] - (values[minus][metric] if minus else 0)
                mean, low, high, _ = mean_interval(value, images)
                cells.append(f"{mean:.3f} [{low:.3f}, {high:.3f}]")
            lines.append(f"| {name}{f' minus {minus}' if minus else ''} | {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=0, help="test scenes to measure on")
    parser.add_argument("--train", type=int, default=4000, help="scenes to train heads on")
    parser.add_argument("--coco", type=Path, help="folder of COCO: annotations and val2017")
    parser.add_argument("--model", default="deit_tiny_patch16_224", help="a timm model for COCO")
    parser.add_argument("--weights", type=Path, help="its weights; else timm's own")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--least", type=int, default=8, help="photographs a category has at least")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    lines = []
    if args.scenes:
        for name, spec in (("demo", "demo"), ("deep", str(DEEP))):
            model = gradtoken.load(spec, device="cpu")
            lines += table(name, on_scenes(model, args.scenes, args.train, args.seed))
    if args.coco:
        spec = f"timm/{args.model}"
        model = gradtoken.load(spec, checkpoint=args.weights, device="cpu")
        lines += table(args.model, on_coco(model, args.coco, args.folds, args.least, args.seed))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
