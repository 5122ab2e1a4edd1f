"""Do the maps fall on their own objects? The table of docs/results.md.

    python benchmarks/localization.py --scenes 500

Test scenes of 2 to 3 objects, in the art style training never saw, that the bundled model
recognises whole. Each figure has its 95% bootstrap interval over scenes; the second table has the
paired differences of GradToken to each other method.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gradtoken import load
from gradtoken.attribution import Method, make_method
from gradtoken.bench import FIGURES, column, measure
from gradtoken.datasets import Scenes
from gradtoken.metrics import mean_interval


def methods() -> dict[str, Method]:
    """GradToken's default and presets, and the baselines."""
    ours = {
        f"gradtoken ({preset})": make_method("gradtoken", preset=preset)
        for preset in ("faithful", "sharp", "contrastive")
    }
    full = make_method("gradtoken", gradient="full")
    baselines = {name: make_method(name) for name in ("raw-attention", "rollout")}
    return {"gradtoken": make_method("gradtoken"), **ours, "gradtoken (full)": full, **baselines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=500, help="recognised scenes to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--markdown", type=Path, help="also write the tables here")
    parser.add_argument("--json", type=Path, help="also write every record here")
    args = parser.parse_args()

    chosen = methods()
    scenes = Scenes("test", objects=(2, 3), seed=args.seed)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("scenes", total=args.scenes)
        records, seen = measure(
            load(args.model, device="cpu"),
            chosen,
            scenes,
            args.scenes,
            progress=lambda done: progress.update(task, completed=done),
        )
    images = np.array([r["scene"] for r in records if r["method"] == "gradtoken"])
    tables = [
        ("figures, mean [95% interval]", list(chosen), None),
        ("gradtoken minus the method, paired", list(chosen)[1:], "gradtoken"),
    ]
    title = f"{args.scenes} scenes ({len(images)} objects), of {seen} looked at"
    lines = [f"Test scenes: {title}.", ""]
    for caption, names, reference in tables:
        table = Table("method", *FIGURES, title=caption)
        lines += [f"| {caption} | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
        for name in names:
            cells = []
            for figure in FIGURES:
                values = column(records, name, figure)
                if reference:
                    values = column(records, reference, figure) - values
                mean, low, high, _ = mean_interval(values, images)
                cells.append(f"{mean:.3f} [{low:.3f}, {high:.3f}]")
            table.add_row(name, *cells)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
        Console().print(table)
    Console().print(title)
    if args.markdown:
        args.markdown.write_text("\n".join(lines))
    if args.json:
        args.json.write_text(json.dumps(records))


if __name__ == "__main__":
    main()
