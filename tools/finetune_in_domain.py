"""Fine-tune a classifier so that images with a deleted part are in its domain.

IDSDS deletes one cell of a 4x4 grid, F-Fidelity a tenth of the pixels; both ask a model that saw
such images in training. Half of the images keep every pixel (`--deletion cell`), or each image
loses a tenth of its pixels at random (`--deletion pixels`); deleted pixels are 0 after
normalisation.

::

    python tools/finetune_in_domain.py train --out runs/in-domain
    python tools/finetune_in_domain.py train --model timm/deit_tiny_patch16_224 \
        --images imagenet/train --test imagenet/val --steps 5000 --out runs/deit-in-domain
    python tools/finetune_in_domain.py evaluate --weights runs/in-domain/in_domain.safetensors

The bundled model is trained on the bundled scenes, other models on a folder of images with a
folder for each class. Training saves every few minutes and on SIGTERM or SIGINT; `train --resume`
continues where it was, with the same images and the same deletions as without a stop. The end
writes `in_domain.safetensors` (fp16) and prints the accuracy on whole images and on images with a
part deleted, before and after.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import gradtoken
from gradtoken.bench.in_domain import load_in_domain
from gradtoken.bench.matching import Matcher
from gradtoken.datasets import Scenes, SceneSamples
from gradtoken.datasets.image_folder import ImageFolder
from gradtoken.datasets.sample import Samples
from gradtoken.metrics import mean_interval
from gradtoken.metrics.single_deletion import cells_of
from gradtoken.models import Model

ASSETS = Path(__file__).parents[1] / "src/gradtoken/models/assets"
GRID, DROP = 4, 0.1
SMOOTHING = 0.05
WARM_UP = 0.05
TEST_SEED = 7


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="fine-tune, and measure at the end")
    train.add_argument("--out", type=Path, required=True, help="folder for checkpoint and log")
    train.add_argument("--resume", action="store_true", help="continue the checkpoint in --out")
    train.add_argument("--steps", type=int, default=400)
    train.add_argument("--batch", type=int, default=48)
    train.add_argument("--lr", type=float, default=2e-4, help="peak rate of AdamW")
    train.add_argument("--save-minutes", type=float, default=3)
    evaluate = commands.add_parser("evaluate", help="measure a file that `train` wrote")
    evaluate.add_argument("--weights", type=Path, default=ASSETS / "demo_in_domain.safetensors")
    for command in (train, evaluate):
        command.add_argument("--model", default="demo", help="the model before it is fine-tuned")
        command.add_argument("--checkpoint", help="its weights, where they are a file of your own")
        command.add_argument("--images", help="folder of images, a folder for each class")
        command.add_argument("--test", help="the same, of images to measure on")
        command.add_argument("--tests", type=int, default=1000, help="images to measure on")
        command.add_argument("--deletion", choices=("cell", "pixels"), default="cell")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--workers", type=int, default=0, help="processes that read images")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    {"train": run_train, "evaluate": run_evaluate}[args.command](args)


class Labelled(Dataset[tuple[Tensor, Tensor]]):
    """Endless images, and 1 for each class that is present; the order is the seed's.

    Args:
        model: whose preprocessing and classes are used.
        samples: the images.
        seed: of the order in which a folder is read, anew each time; None is as it comes.
    """

    def __init__(self, model: Model, samples: Samples, seed: int | None = None) -> None:
        self._model, self._samples, self._seed = model, samples, seed
        self._matcher = Matcher(model.labels, samples.vocabulary)

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        sample = self._samples[self.place(position)]
        names = [self._matcher.find(name) for name in sample.names]
        classes = [sample.label] if sample.label is not None else names
        if not classes or any(c is None for c in classes):
            raise SystemExit(f"{sample.id} shows {sample.names}, which the model has no class for")
        present = torch.zeros(len(self._model.labels))
        present[classes] = 1
        return self._model.preprocess(sample.image), present

    def place(self, position: int) -> int:
        """Which sample comes at a position."""
        if self._seed is None or isinstance(self._samples, SceneSamples):
            return position
        again, place = divmod(position, len(self._samples))
        rng = np.random.default_rng((self._seed, again))
        return int(rng.permutation(len(self._samples))[place])


def training_images(args: argparse.Namespace) -> Samples:
    """Scenes that the bundled model never saw, or the folder."""
    if args.images:
        return ImageFolder(args.images)
    return SceneSamples(Scenes("train", 112, (1, 3), seed=20_000 + args.seed))


def test_images(args: argparse.Namespace) -> Samples:
    """Scenes in a style that no training showed, or the folder."""
    if args.test:
        return ImageFolder(args.test)
    return SceneSamples(Scenes("test", 112, (1, 3), seed=TEST_SEED))


def check_data(args: argparse.Namespace) -> None:
    """See that there are images for the model."""
    if (args.model == "demo") == bool(args.images or args.test):
        raise SystemExit("demo is trained on its own scenes; other models need --images and --test")
    if args.model != "demo" and not (args.test and (args.images or args.command == "evaluate")):
        raise SystemExit(f"{args.model} needs --images and --test, folders of images by class")


def deletions(deletion: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Which pixels of each image are deleted, (B, 1, H, W): in half of the images one cell, or in
    each image a tenth of the pixels.
    """
    batch, height, width = shape
    if deletion == "cell":
        cells = cells_of(height, width, GRID)
        away = cells[torch.randint(GRID * GRID, (batch,), generator=generator)]
        return (away & (torch.rand(batch, 1, 1, generator=generator) < 0.5))[:, None]
    scores = torch.rand(batch, height * width, generator=generator)
    last = scores.kthvalue(int(DROP * height * width), dim=1, keepdim=True).values
    return (scores <= last).view(batch, 1, height, width)


def batches(
    dataset: Labelled, start: int, end: int, args: argparse.Namespace
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of steps `start` to `end`."""
    chunks = [range(step * args.batch, (step + 1) * args.batch) for step in range(start, end)]
    return iter(DataLoader(dataset, batch_sampler=chunks, num_workers=args.workers))


def run_train(args: argparse.Namespace) -> None:
    """Fine-tune until the steps are done or a signal asks to stop."""
    check_data(args)
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"
    model = gradtoken.load(args.model, checkpoint=args.checkpoint)
    module = model.module.requires_grad_(True)
    optimizer = make_optimizer(module, args.lr)
    done = 0
    if args.resume:
        saved = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["done"]

    dataset = Labelled(model, training_images(args), args.seed)
    saved_at, losses = time.monotonic(), []
    with (
        stopped_by_signals() as stopping,
        plain_attention(module, model.device),
        (args.out / "log.jsonl").open("a") as log,
    ):
        module.train()
        for images, present in batches(dataset, done, args.steps, args):
            for group in optimizer.param_groups:
                group["lr"] = args.lr * rate(done, args.steps)
            losses.append(step(model, optimizer, images, present, args, done))
            done += 1
            if done % 25 == 0:
                write(log, {"step": done, "loss": round(float(np.mean(losses)), 4)})
                losses.clear()
            if time.monotonic() - saved_at > args.save_minutes * 60:
                save(checkpoint, module, optimizer, done)
                saved_at = time.monotonic()
            if stopping:
                break
        save(checkpoint, module, optimizer, done)
        module.eval()
        if done == args.steps:
            weights = args.out / "in_domain.safetensors"
            export(weights, model, args)
            for line in measure(args, weights):
                write(log, line)


def save(checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer, done: int) -> None:
    """Write what the training needs to continue."""
    content = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "done": done}
    part = checkpoint.with_suffix(".part")
    torch.save(content, part)
    os.replace(part, checkpoint)


@contextmanager
def stopped_by_signals() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT add to, in place of what they did before."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def plain_attention(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Attention by plain products, which trains faster on a CPU than the fused kernel."""
    fused = [part for part in module.modules() if getattr(part, "fused_attn", False)]
    fused = fused if device.type == "cpu" else []
    for part in fused:
        part.fused_attn = False
    try:
        yield
    finally:
        for part in fused:
            part.fused_attn = True


def rate(done: int, steps: int) -> float:
    """The share of the peak rate: a short rise, then half a cosine down to 0."""
    rise = max(1, round(WARM_UP * steps))
    if done < rise:
        return (done + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (done - rise) / max(1, steps - rise)))


def make_optimizer(module: nn.Module, lr: float) -> torch.optim.Optimizer:
    """AdamW; vectors and scales do not decay."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    rest = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr)


def step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    present: Tensor,
    args: argparse.Namespace,
    done: int,
) -> float:
    """One update; returns the loss."""
    generator = torch.Generator().manual_seed(args.seed * 1_000_003 + done)
    torch.manual_seed(args.seed * 1_000_003 + done)
    if args.images:
        flipped = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(flipped, images.flip(3), images)
    away = deletions(args.deletion, (len(images), *images.shape[2:]), generator)
    images = images.masked_fill(away, 0).to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16):
        logits = model.anatomy.forward(model.module, images)
    loss = loss_of(logits.float(), present.to(model.device), model.activation)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def loss_of(logits: Tensor, present: Tensor, activation: str) -> Tensor:
    """Cross-entropy against equal shares of the classes present, or of each class by itself."""
    if activation == "sigmoid":
        return F.binary_cross_entropy_with_logits(logits, present)
    shares = present / present.sum(1, keepdim=True)
    return F.cross_entropy(logits, shares, label_smoothing=SMOOTHING)


def export(path: Path, model: Model, args: argparse.Namespace) -> None:
    """Write the weights as fp16 safetensors; the bundled model's with its description."""
    facts: dict[str, Any] = {}
    if args.model == "demo":
        with safe_open(ASSETS / "demo.safetensors", "pt") as opened:
            facts = json.loads(opened.metadata()["gradtoken"])
    facts["fine_tuning"] = {
        "of": args.model,
        "deletion": args.deletion,
        "steps": args.steps,
        "batch": args.batch,
        "lr": args.lr,
        "seed": args.seed,
    }
    halves = {name: value.half().contiguous() for name, value in model.module.state_dict().items()}
    save_file(halves, path, metadata={"gradtoken": json.dumps(facts, sort_keys=True)})


def run_evaluate(args: argparse.Namespace) -> None:
    """Measure a file of weights."""
    check_data(args)
    for line in measure(args, args.weights):
        print(json.dumps(line))


def measure(args: argparse.Namespace, weights: Path) -> Iterator[dict[str, Any]]:
    """Accuracy on whole images and on the same with a part deleted, before and after.

    Accuracy is the share of the classes present that are among the first k, where k is the number
    of classes present. Each image loses one cell, or a tenth of its pixels.
    """
    before = gradtoken.load(args.model, checkpoint=args.checkpoint)
    after = load_in_domain(before, str(weights))
    samples = test_images(args)
    count = min(args.tests, len(samples))
    for name, model in (("before", before), ("after", after)):
        found = np.array(list(hits(model, samples, count, args)))
        parts = {"whole": found[:, 0], "deleted": found[:, 1], "fall": found[:, 0] - found[:, 1]}
        shown = {
            part: [round(float(v), 4) for v in mean_interval(values, np.arange(count))[:3]]
            for part, values in parts.items()
        }
        yield {"weights": name, "deletion": args.deletion, "images": count, **shown}


def hits(
    model: Model, samples: Samples, count: int, args: argparse.Namespace
) -> Iterator[tuple[float, float]]:
    """The accuracy on each image, whole and with a part deleted."""
    dataset = Labelled(model, samples)
    generator = torch.Generator().manual_seed(args.seed)
    order = np.random.default_rng(0).permutation(count) if args.test else np.arange(count)
    for start in range(0, count, 50):
        chosen = [dataset[int(i)] for i in order[start : start + 50]]
        images = torch.stack([image for image, _ in chosen])
        shape = (len(images), *images.shape[2:])
        away = deletions(args.deletion, shape, generator)
        if args.deletion == "cell":
            cells = cells_of(*shape[1:], GRID)
            away = cells[torch.randint(GRID * GRID, (len(images),), generator=generator)][:, None]
        logits = [model(images), model(images.masked_fill(away, 0))]
        for b, (_, present) in enumerate(chosen):
            k = int(present.sum())
            best = [row[b].topk(k).indices.cpu() for row in logits]
            yield tuple(float(present[top].mean()) for top in best)


def write(log: Any, line: dict[str, Any]) -> None:
    """Append one JSON line to the log and print it."""
    print(json.dumps(line), flush=True)
    log.write(json.dumps(line) + "\n")
    log.flush()


if __name__ == "__main__":
    main()
