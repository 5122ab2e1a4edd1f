"""How GradToken's default is chosen: settings around it, on several models at once.

    python benchmarks/split_coco.py instances_val2017.json --half first --out first.json
    python benchmarks/choose_default.py --images val2017 --annotations first.json \
        --class-map coco_to_imagenet.json --weights deit_tiny_patch16_224.safetensors

The rule was written down before the first measurement (docs/method.md). Models are the bundled one,
the deep one of this folder and DeiT-Ti/16. Settings are measured on `--scenes` recognised test
scenes (seed 5) and on the first half of the photographs by file name; `--half second` and
`--seed 11` measure on images that took no part.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench.class_map import read_class_map
from gradtoken.bench.run import run
from gradtoken.bench.store import Store
from gradtoken.datasets import COCO, Scenes, SceneSamples
from gradtoken.models import Model

DEEP = Path(__file__).parent / "models" / "deep.safetensors"
METRICS = ("pointing", "token_ap", "share", "energy", "coupling")
WEIGHTS = {"token_ap": 1.0, "share": 1.0, "energy": 1.0, "pointing": 0.5, "coupling": -0.25}
"""What a setting's value is the sum of, averaged over the models."""

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "v0.1": {"preset": "v0.1"},
    **{f"slope {slope:g}": {"slope": slope} for slope in (0.0, 0.3, 0.5, 0.6, 0.8)},
    "no rectification": {"rectify": None},
    "no floor taken away": {"centre": False},
    **{f"{count} rivals": {"rivals": count} for count in (0, 8, 24, 48)},
    "rivals by likelihood": {"rival_weight": "likelihood"},
    "rivals alike": {"rival_weight": "equal"},
    **{f"reach {reach:g}": {"reach": reach} for reach in (0.1, 0.2)},
    "attention of all blocks": {"spread_layers": "all"},
    "near": {"spread": "near"},
    "no spread": {"spread": None},
    **{f"beta {beta:g}": {"beta": beta} for beta in (0.4, 0.6, 0.75, 1.0)},
    **{f"depth {depth:g}": {"depth": depth} for depth in (0.0, 1.0, 3.0)},
}
"""Options of GradToken, each setting one step from the default."""


def means(model: Model, samples: Any, count: int, class_map: Any = None) -> dict[str, list[float]]:
    """Each setting's mean of each metric over objects."""
    methods = {name: make_method("gradtoken", **options) for name, options in SETTINGS.items()}
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        task = progress.add_task(model.spec, total=count)
        outcome = run(
            model,
            methods,
            samples,
            ("localization", "coupling"),
            Store(Path(folder), {}),
            limit=count,
            slow_limit=0,
            class_map=class_map,
            progress=lambda done: progress.update(task, completed=done),
        )
    records = outcome.records
    return {
        name: [
            float(np.nanmean(records.value[(records.method == name) & (records.metric == metric)]))
            for metric in METRICS
        ]
        for name in SETTINGS
    }


def table(by_model: dict[str, dict[str, list[float]]]) -> list[str]:
    """A row for each setting: its value, then the metrics of each model."""
    head = [f"{model}: {', '.join(METRICS)}" for model in by_model]
    lines = [f"| setting | value | {' | '.join(head)} |", "|---" * (len(head) + 2) + "|"]
    for name in SETTINGS:
        rows = [values[name] for values in by_model.values()]
        value = np.mean(
            [
                sum(WEIGHTS[metric] * v for metric, v in zip(METRICS, row, strict=True))
                for row in rows
            ]
        )
        cells = [" ".join(f"{v:.3f}" for v in row) for row in rows]
        lines.append(f"| {name} | {value:.3f} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100, help="scenes for each bundled model")
    parser.add_argument("--seed", type=int, default=5, help="of the scenes")
    parser.add_argument("--images", type=Path, help="folder of COCO's photographs")
    parser.add_argument("--annotations", type=Path, help="half of COCO's instances")
    parser.add_argument("--class-map", type=Path, help="ImageNet classes of COCO's categories")
    parser.add_argument("--weights", type=Path, help="DeiT-Ti's weights; else timm's own")
    args = parser.parse_args()
    results = {}
    for name, spec in (("demo", "demo"), ("deep", str(DEEP))):
        model = gradtoken.load(spec, device="cpu")
        scenes = SceneSamples(Scenes("test", objects=(2, 3), seed=args.seed))
        results[name] = means(model, scenes, args.scenes)
    if args.images:
        model = gradtoken.load("timm/deit_tiny_patch16_224", checkpoint=args.weights, device="cpu")
        samples = COCO(args.images, annotations=args.annotations)
        mapped = read_class_map(args.class_map, model.labels)
        results["DeiT-Ti"] = means(model, samples, len(samples), mapped)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
