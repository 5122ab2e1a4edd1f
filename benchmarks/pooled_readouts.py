"""How should a model without a class token be explained? A table of both ways.

    python benchmarks/pooled_readouts.py --scenes 200

The bundled model's blocks stay as they are and get another head, trained on train scenes from image
labels: one on the average of the patch tokens, one on an attention pool. Each is then explained by
its last step alone (`gradient="stream"`) and through all blocks (`gradient="full"`).
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, track
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn
from torch.nn import functional as F

import gradtoken
from gradtoken.attribution import Method, make_method
from gradtoken.bench import METRICS, column, measure
from gradtoken.datasets import Scenes
from gradtoken.metrics import mean_interval
from gradtoken.models import Model

MEAN = STD = 0.5


def methods() -> dict[str, Method]:
    """GradToken both ways, spread over alike patches and faithful, and the baselines.

    Blocks count alike, the target is the logit and distance does not limit the spread, so that the
    two ways differ in nothing but the gradient.
    """
    spread = {"depth": 0, "target": "logit", "spread": "token", "reach": None}
    gradtoken_methods = {
        f"gradtoken, {gradient}{suffix}": make_method("gradtoken", gradient=gradient, **options)
        for gradient in ("stream", "full")
        for suffix, options in (("", spread), (" (faithful)", {"preset": "faithful"}))
    }
    return {
        **gradtoken_methods,
        **{name: make_method(name) for name in ("raw-attention", "rollout")},
    }


def tokens_of(module: nn.Module, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Last patch tokens in half precision (count, N, D) and soft labels (count, C)."""
    scenes = Scenes("train", 112, (1, 3), seed=seed)
    tokens, labels = [], torch.zeros(count, len(scenes.classes))
    for start in track(range(0, count, 50), "features"):
        drawn = [scenes[index] for index in range(start, start + 50)]
        pixels = torch.from_numpy(np.stack([np.asarray(scene.image) for scene in drawn]))
        with torch.no_grad():
            features = module.forward_features((pixels.permute(0, 3, 1, 2) / 255 - MEAN) / STD)
        tokens.append(features[:, module.num_prefix_tokens :].half())
        for row, scene in enumerate(drawn, start=start):
            labels[row, list(scene.labels)] = 1 / len(scene.labels)
    return torch.cat(tokens), labels


def with_head(model: Model, kind: str, tokens: Tensor, labels: Tensor, epochs: int) -> Model:
    """The model with a trained head of another kind; its blocks and norm are shared."""
    module = copy.deepcopy(model.module)
    width, classes = module.embed_dim, len(model.labels)
    torch.manual_seed(0)
    pool = AttentionPoolLatent(width, num_heads=3) if kind == "map" else None
    head = nn.Linear(width, classes)
    layers = nn.ModuleList([head] if pool is None else [pool, head])
    rate = 1e-3 if kind == "map" else 3e-3
    optimizer = torch.optim.AdamW(layers.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * (len(tokens) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for step in track(range(steps), f"training the {kind} head"):
        if step % (len(tokens) // 64) == 0:
            order = torch.randperm(len(tokens))
        rows = order[:64].clone()
        order = order.roll(-64)
        batch = tokens[rows].float()
        read = batch.mean(dim=1) if pool is None else pool(batch)
        loss = F.cross_entropy(head(read), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    module.global_pool, module.attn_pool, module.head = kind, pool, head
    return gradtoken.wrap(module, preprocess=model.preprocess, labels=list(model.labels))


def rows(model: Model, count: int) -> list[str]:
    """The table's rows for one model."""
    chosen, readout = methods(), model.anatomy.readout
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(readout, total=count)
        scenes = Scenes("test", objects=(2, 3))
        records, drawn = measure(
            model, chosen, scenes, count, progress=lambda n: progress.update(task, completed=n)
        )
    images = np.array([r["scene"] for r in records if r["method"] == "raw-attention"])
    lines = []
    for name in chosen:
        cells = []
        for metric in METRICS:
            mean, low, high, _ = mean_interval(column(records, name, metric), images)
            cells.append(f"{mean:.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {readout}: {name} | {' | '.join(cells)} |")
    note = f"*{readout}: {count} scenes ({len(images)} objects), of {drawn} drawn*"
    return [*lines, f"| {note} " + "| " * len(METRICS) + "|"]


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=200, help="recognised scenes to measure on")
    parser.add_argument("--train", type=int, default=5000, help="scenes to train the heads on")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    args = parser.parse_args()
    base = gradtoken.load("demo", device="cpu")
    tokens, labels = tokens_of(base.module, args.train, seed=77)
    lines = [f"| readout and method | {' | '.join(METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    for kind in ("avg", "map"):
        lines += rows(with_head(base, kind, tokens, labels, args.epochs), args.scenes)
    print("\n".join(lines))
    if args.markdown:
        args.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
