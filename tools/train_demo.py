"""Train, evaluate and export the bundled demo model on a CPU.

The demo model is an ordinary Vision Transformer trained from image labels only: it sees no mask,
and no term of its loss knows about patches or explanations. Training runs in three stages within
one wall clock budget:

1. single objects on 56 px images; every image uses a random window of the position table of
   the 112 px model, so all positions are learned;
2. scenes of one to three objects at 112 px with half of the patches dropped;
3. the same scenes with nearly all patches, so that training ends on what the model is used for.

::

    python tools/train_demo.py train --out runs/demo --minutes 90
    python tools/train_demo.py export --checkpoint runs/demo/checkpoint.pt
    python tools/train_demo.py evaluate --scenes 1000 --card

Training saves every few minutes and on SIGTERM or SIGINT; ``train --resume`` continues with the
time that is left.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from safetensors import safe_open
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from gradtoken.datasets import Scenes

ASSETS = Path(__file__).parents[1] / "src/gradtoken/models/assets"
MEAN = STD = 0.5
TEST_SEED = 7
SLOTS = 4


@dataclass(frozen=True)
class Stage:
    """What one part of the training shows; ``until`` is its end as a share of the budget."""

    name: str
    until: float
    size: int
    objects: tuple[int, int]
    extent: tuple[float, float] | None
    batch: int
    drop: float


# The objects of stage 1 have the pixel size they have in the scenes of stage 2.
STAGES = (
    Stage("1: single, 56 px", 0.55, 56, (1, 1), (0.55, 0.95), 64, 0.1),
    Stage("2: scenes, half the patches", 0.82, 112, (1, 3), None, 64, 0.5),
    # 5 of 196 patches: matrices of 192 tokens multiply much faster than those of 197.
    Stage("3: scenes", 1.01, 112, (1, 3), None, 48, 5 / 196),
)


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train within a wall clock budget")
    train.add_argument("--out", type=Path, required=True, help="folder for checkpoint and log")
    train.add_argument("--minutes", type=float, default=90, help="training time in all")
    train.add_argument("--resume", action="store_true", help="continue the checkpoint in --out")
    train.add_argument("--init", type=Path, help="start from the weights of an exported file")
    train.add_argument(
        "--skip", type=float, default=0.0, help="share of the stages to skip, with --init"
    )
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--depth", type=int, default=6)
    train.add_argument("--dim", type=int, default=192)
    train.add_argument("--heads", type=int, default=3)
    train.add_argument("--lr", type=float, default=2e-3, help="peak rate of Muon")
    train.add_argument("--adam-lr", type=float, default=1.5e-3, help="peak rate of AdamW")
    train.add_argument("--threads", type=int, default=2)
    train.add_argument("--compile", action="store_true", help="torch.compile the blocks")
    train.add_argument("--save-minutes", type=float, default=3)
    train.add_argument("--test-minutes", type=float, default=8)
    evaluate = commands.add_parser("evaluate", help="print top-1 and recall as JSON")
    evaluate.add_argument(
        "--checkpoint",
        type=Path,
        default=ASSETS / "demo.safetensors",
        help="a training checkpoint or an exported file",
    )
    evaluate.add_argument("--scenes", type=int, default=1000, help="images of each kind")
    evaluate.add_argument("--card", action="store_true", help="also write the model card")
    evaluate.add_argument("--note", default="", help="a remark on the training for the card")
    export = commands.add_parser("export", help="write the bundled fp16 safetensors file")
    export.add_argument("--checkpoint", type=Path, required=True)
    export.add_argument("--out", type=Path, default=ASSETS / "demo.safetensors")
    args = parser.parse_args()
    {"train": run_train, "evaluate": run_evaluate, "export": run_export}[args.command](args)


def run_train(args: argparse.Namespace) -> None:
    """Train until the budget is spent or a signal asks to stop."""
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "checkpoint.pt"
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    saved = torch.load(path, weights_only=True) if args.resume else None
    classes = Scenes("test").classes
    architecture = (
        saved["architecture"]
        if saved
        else {
            "img_size": 112,
            "patch_size": 8,
            "embed_dim": args.dim,
            "depth": args.depth,
            "num_heads": args.heads,
            "class_token": True,
            "global_pool": "token",
            "num_classes": len(classes),
        }
    )
    model = VisionTransformer(**architecture)
    if args.init and not saved:
        model.load_state_dict(read_trained(args.init)[1])
    optimizers = make_optimizers(model, args.lr, args.adam_lr)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    for block in model.blocks:
        # On a CPU the plain products train a quarter faster than the fused kernel's backward.
        block.attn.fused_attn = False
        if args.compile:
            block.compile(dynamic=False)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    state = {"seconds": 0.0, "step": 0, "images": 0}
    if saved:
        model.load_state_dict(saved["model"])
        average = saved["ema"]
        state = saved["state"]
        for optimizer, stored in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(stored)

    def save() -> None:
        content = {
            "architecture": architecture,
            "classes": list(classes),
            "model": model.state_dict(),
            "ema": average,
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "state": state,
            "minutes": args.minutes,
            "stages": [asdict(stage) for stage in STAGES],
        }
        part = path.with_suffix(".part")
        torch.save(content, part)
        os.replace(part, path)

    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))

    budget = args.minutes * 60
    log = (args.out / "log.jsonl").open("a", encoding="utf-8")
    last = time.monotonic()
    next_log, next_save = state["seconds"] + 30, state["seconds"] + args.save_minutes * 60
    next_test = state["seconds"] + args.test_minutes * 60
    losses: list[float] = []
    shown, since = 0, state["seconds"]
    while state["seconds"] < budget and not stopping:
        stage = stage_at(state["seconds"] / budget, args.skip)
        for images, targets in batches(stage, args.seed, state["images"]):
            progress = state["seconds"] / budget
            rate = min(1.0, (state["step"] + 1) / 200) * max(0.0, 1 - progress)
            for optimizer, peak in zip(optimizers, peaks, strict=True):
                for group, value in zip(optimizer.param_groups, peak, strict=True):
                    group["lr"] = value * rate
            losses.append(step(model, optimizers, images, targets, stage))
            state["step"] += 1
            state["images"] += len(images)
            shown += len(images)
            update_average(average, model, min(0.997, state["step"] / (state["step"] + 20)))
            now = time.monotonic()
            state["seconds"] += now - last
            last = now
            if state["seconds"] >= next_log:
                line = {
                    "minutes": round(state["seconds"] / 60, 2),
                    "stage": stage.name,
                    "step": state["step"],
                    "images": state["images"],
                    "loss": round(float(np.mean(losses)), 4),
                    "images_per_s": round(shown / (state["seconds"] - since), 1),
                    "rate": round(rate, 4),
                }
                write(log, line)
                losses.clear()
                shown, since = 0, state["seconds"]
                next_log += 60
            if state["seconds"] >= next_test:
                figures = measure(with_weights(architecture, average), "test", 300, 200)
                write(log, {"minutes": round(state["seconds"] / 60, 2), **figures})
                next_test += args.test_minutes * 60
            if state["seconds"] >= next_save:
                save()
                next_save += args.save_minutes * 60
            spent = state["seconds"] / budget
            if stopping or spent >= 1 or stage_at(spent, args.skip) is not stage:
                break
    save()
    figures = measure(with_weights(architecture, average), "test", 300, 300)
    write(log, {"minutes": round(state["seconds"] / 60, 2), "finished": not stopping, **figures})


def stage_at(progress: float, skip: float) -> Stage:
    """The stage at ``progress``, the share of the budget spent, when ``skip`` of all is skipped."""
    place = skip + (1 - skip) * progress
    return next((stage for stage in STAGES if place < stage.until), STAGES[-1])


def make_optimizers(
    model: VisionTransformer, muon_lr: float, adam_lr: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    matrices, tables, rest = [], [], []
    for name, value in model.named_parameters():
        if name.startswith("blocks.") and value.ndim == 2:
            matrices.append(value)
        elif value.ndim > 1 and name not in ("pos_embed", "cls_token"):
            tables.append(value)
        else:
            rest.append(value)
    return [
        torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [
                {"params": tables, "weight_decay": 0.05},
                {"params": rest, "weight_decay": 0.0},
            ],
            lr=adam_lr,
            betas=(0.9, 0.98),
        ),
    ]


def step(
    model: VisionTransformer,
    optimizers: list[torch.optim.Optimizer],
    images: Tensor,
    targets: Tensor,
    stage: Stage,
) -> float:
    """One update on images uint8 (B, 3, H, W) and soft labels (B, C); returns the loss."""
    model.train()
    pixels = (images.float() / 255 - MEAN) / STD
    with torch.autocast("cpu", torch.bfloat16):
        logits = window_forward(model, pixels, stage.drop)
    loss = F.cross_entropy(logits.float(), targets, label_smoothing=0.05)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def window_forward(model: VisionTransformer, pixels: Tensor, drop: float) -> Tensor:
    """Logits (B, C) of images (B, 3, H, W) that may be smaller than the model's.

    Every image gets the position embeddings of a random window of the table, and a share
    ``drop`` of its patches is left out. At full size and ``drop=0`` this is ``model(pixels)``.
    """
    tokens = model.patch_embed.proj(pixels)
    batch, _, height, width = tokens.shape
    tokens = tokens.flatten(2).transpose(1, 2)
    rows, columns = model.patch_embed.grid_size
    top = torch.randint(rows - height + 1, (batch, 1, 1))
    left = torch.randint(columns - width + 1, (batch, 1, 1))
    down, across = torch.arange(height)[:, None], torch.arange(width)
    index = ((top + down) * columns + left + across).flatten(1)
    tokens = tokens + model.pos_embed[0, 1:][index]
    if drop:
        keep = torch.rand(index.shape).argsort(dim=1)[:, : round(index.shape[1] * (1 - drop))]
        tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
    start = (model.cls_token + model.pos_embed[:, :1]).expand(batch, -1, -1)
    tokens = model.blocks(torch.cat([start.to(tokens.dtype), tokens], dim=1))
    return model.head(model.norm(tokens[:, 0]))


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Move the running average of the weights towards the model's."""
    state = model.state_dict()
    torch._foreach_lerp_(list(average.values()), [state[key] for key in average], 1 - decay)


def batches(stage: Stage, seed: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches drawn by one worker process: images uint8 (B, 3, H, W), labels (B, C).

    Scenes are numbered from ``start``, so no scene is ever shown twice.
    """
    classes = len(Scenes("test").classes)
    images = torch.empty(SLOTS, stage.batch, stage.size, stage.size, 3, dtype=torch.uint8)
    targets = torch.empty(SLOTS, stage.batch, classes)
    images.share_memory_()
    targets.share_memory_()
    context = mp.get_context("spawn")
    free, ready = context.SimpleQueue(), context.SimpleQueue()
    worker = context.Process(
        target=draw_batches, args=(stage, seed, start, images, targets, free, ready), daemon=True
    )
    worker.start()
    for slot in range(SLOTS):
        free.put(slot)
    try:
        while True:
            slot = ready.get()
            taken = images[slot].permute(0, 3, 1, 2).contiguous(), targets[slot].clone()
            free.put(slot)
            yield taken
    finally:
        worker.terminate()
        worker.join()


def draw_batches(
    stage: Stage, seed: int, start: int, images: Tensor, targets: Tensor, free: Any, ready: Any
) -> None:
    """Worker process: fill free slots of ``images`` (S, B, H, W, 3) and ``targets`` (S, B, C)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    scenes = Scenes("train", stage.size, stage.objects, seed=10_000 + seed, extent=stage.extent)
    index = start
    while True:
        slot = free.get()
        pictures, labels = images[slot].numpy(), targets[slot].numpy()
        labels[:] = 0
        for row in range(stage.batch):
            scene = scenes[index]
            pictures[row] = np.asarray(scene.image)
            labels[row, list(scene.labels)] = 1 / len(scene.labels)
            index += 1
        ready.put(slot)


def with_weights(architecture: dict[str, Any], weights: dict[str, Tensor]) -> VisionTransformer:
    """A model in evaluation mode."""
    model = VisionTransformer(**architecture)
    model.load_state_dict(weights)
    return model.eval()


def measure(model: VisionTransformer, split: str, single: int, several: int) -> dict[str, Any]:
    """Top-1 on scenes of one object and recall on scenes of two or three, each from 0 to 1.

    Recall is the share of all objects that are among the model's k first classes, where k is
    the number of objects in the scene.
    """
    figures: dict[str, Any] = {"split": split}
    for key, objects, count in (("top1", (1, 1), single), ("recall", (2, 3), several)):
        scenes = Scenes(split, 112, objects, seed=TEST_SEED)
        found = total = 0
        for first in range(0, count, 100):
            batch = [scenes[index] for index in range(first, min(first + 100, count))]
            pixels = torch.from_numpy(np.stack([np.asarray(scene.image) for scene in batch]))
            with torch.no_grad():
                logits = model((pixels.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD)
            for scene, row in zip(batch, logits, strict=True):
                best = row.topk(len(scene.labels)).indices.tolist()
                found += len(set(best) & set(scene.labels))
                total += len(scene.labels)
        figures[key] = round(found / total, 4)
        figures[f"{key}_scenes"] = count
        figures[f"{key}_objects"] = total
    return figures


def write(log: Any, line: dict[str, Any]) -> None:
    """Append one JSON line to the log and print it."""
    text = json.dumps({"utc": datetime.now(UTC).strftime("%H:%M:%S"), **line})
    print(text, flush=True)
    log.write(text + "\n")
    log.flush()


def run_evaluate(args: argparse.Namespace) -> None:
    """Print the figures of a trained model on both splits."""
    facts, weights = read_trained(args.checkpoint)
    model = with_weights(facts["architecture"], weights)
    figures = [measure(model, split, args.scenes, args.scenes) for split in ("test", "train")]
    print(json.dumps(figures, indent=1))
    if args.card:
        text = model_card(facts, weights, figures, args.scenes, args.note)
        (ASSETS / "DEMO_MODEL.md").write_text(text, encoding="utf-8")


def run_export(args: argparse.Namespace) -> None:
    """Write the averaged weights as fp16 safetensors with everything needed to use them."""
    facts, weights = read_trained(args.checkpoint)
    halves = {name: value.half().contiguous() for name, value in weights.items()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(halves, args.out, metadata={"gradtoken": json.dumps(facts, sort_keys=True)})
    print(f"{args.out}: {args.out.stat().st_size} bytes")


def read_trained(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and averaged weights of a training checkpoint or of an exported file."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as opened:
            facts = json.loads(opened.metadata()["gradtoken"])
            return facts, {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
    saved = torch.load(path, weights_only=True)
    facts = {
        "architecture": saved["architecture"],
        "classes": saved["classes"],
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "input_size": saved["architecture"]["img_size"],
        "activation": "softmax",
        "training": {
            "minutes": round(saved["state"]["seconds"] / 60, 1),
            "steps": saved["state"]["step"],
            "images": saved["state"]["images"],
            "stages": saved["stages"],
        },
    }
    return facts, saved["ema"]


def model_card(
    facts: dict[str, Any],
    weights: dict[str, Tensor],
    figures: list[dict[str, Any]],
    scenes: int,
    note: str,
) -> str:
    """The model card as Markdown."""
    shape, training = facts["architecture"], facts["training"]
    count = sum(value.numel() for value in weights.values()) / 1e6
    table = "\n".join(
        f"| {row['split']} | {row['top1']:.3f} (n = {row['top1_objects']}) "
        f"| {row['recall']:.3f} (n = {row['recall_objects']} objects "
        f"in {row['recall_scenes']} scenes) |"
        for row in figures
    )
    stages, start = [], 0.0
    for stage in training["stages"]:
        end = min(stage["until"], 1.0)
        low, high = stage["objects"]
        stages.append(
            f"- {start:.0%} to {end:.0%} of the time: {stage['size']} px images of "
            f"{low if low == high else f'{low} to {high}'} object(s), batches of "
            f"{stage['batch']}, {stage['drop']:.0%} of the patches left out"
        )
        start = end
    stage_text = "\n".join(stages)
    return f"""# The demo model

`demo.safetensors` holds an ordinary Vision Transformer (timm `VisionTransformer`,
{shape["img_size"]} px images, {shape["patch_size"]} px patches, width {shape["embed_dim"]},
{shape["depth"]} blocks, {shape["num_heads"]} heads, class token; {count:.1f} million weights,
stored as fp16). It names the {len(facts["classes"])} drawn objects of `gradtoken.datasets.Scenes`:
{", ".join(facts["classes"])}.

Images are normalised with mean {MEAN} and standard deviation {STD} in every channel.

## Training

It was trained with `tools/train_demo.py` from random weights on `Scenes("train")`, from image
labels only: cross-entropy against equal shares for the objects in the image. It never saw a
mask, and no part of its loss knows about patches or explanations. {training["minutes"]:.0f} minutes
on two CPU cores, {training["steps"]} steps, {training["images"]} images; Muon for the matrices in
the blocks, AdamW for the rest, running average of the weights.

{stage_text}
{f"{chr(10)}{note}{chr(10)}" if note else ""}
## Figures

Measured on the stored fp16 weights with

    python tools/train_demo.py evaluate --scenes {scenes}

| split | top-1, one object | recall, two or three objects |
| --- | --- | --- |
{table}

The test split draws every object in a style (Twemoji) that training never showed, one drawing for
each class; the train split draws fresh scenes in the nine training styles, restyled as in
training. Recall is the share of all objects that are among the model's k first classes, where k
is the number of objects in the scene.

## Limits

A small model for demonstrations and tests. It knows the {len(facts["classes"])} objects above as
drawings and nothing else; on photographs its output means nothing.
"""


if __name__ == "__main__":
    main()
