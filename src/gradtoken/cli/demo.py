"""`gradtoken demo`: every object of a test scene explained, and the truth beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken import atomic
from gradtoken.cli.options import ModelOptions, check_writable
from gradtoken.cli.output import Output
from gradtoken.errors import TargetError

if TYPE_CHECKING:
    from gradtoken.datasets import Scene, Scenes
    from gradtoken.explanation.explanation import Explanation
    from gradtoken.models import Model

EXAMPLES = """
Examples:

- `gradtoken demo`
- `gradtoken demo --seed 7 --objects 4 --out my-demo`
"""
_SCENES = 200
"""Scenes among which one is chosen."""


@dataclass(frozen=True)
class DemoOptions:
    """The options of `gradtoken demo`."""

    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("gradtoken-demo")
    seed: Annotated[int, typer.Option(min=0, help="Which scene.")] = 70
    objects: Annotated[int, typer.Option(min=2, max=5, help="Objects in the scene.")] = 3
    output: Output = field(default_factory=Output)


def run(options: DemoOptions) -> None:
    """Draw a test scene, explain every object in it with the bundled model, and check the maps.

    The objects are drawn in an art style the model never saw. The scene is the first of the seed's
    that the model recognises whole, and the table says how many it passed over.
    """
    from gradtoken.datasets import Scenes
    from gradtoken.explaining import explain
    from gradtoken.metrics.coupling import coupling
    from gradtoken.metrics.localization import Coverage

    check_writable(options.out)
    model = ModelOptions(device="cpu").load("demo")
    index, scene = _recognised(model, Scenes("test", objects=options.objects, seed=options.seed))
    targets = list(scene.labels)
    explanations = {
        name: explain(model, scene.image, targets, method=name) for name in ("gradtoken", "rollout")
    }
    explanation = explanations["gradtoken"]
    coverage = Coverage.of_scene(scene, explanation.boxes.grid)
    metrics = {name: coverage.metrics(e.tokens[0]) for name, e in explanations.items()}
    couplings = {name: coupling(e) for name, e in explanations.items() if len(targets) > 1}
    explanation.save(options.out)
    path = options.out / "demo.png"
    _draw(scene, explanations, path)

    output = options.output
    output.say(_table(f"test scene {index} of seed {options.seed}", scene, explanation, metrics))
    if couplings:
        output.say(
            "semantic coupling (1 = same map for every class): "
            + ", ".join(f"{name} {value:.2f}" for name, value in couplings.items())
        )
    if index:
        output.say(f"passed over {index} scene(s) whose objects the model does not all name.")
    output.say(f"image: {escape(str(path))}", soft_wrap=True)
    output.document(
        {
            "seed": options.seed,
            "scene": index,
            "targets": explanation.to_dict()[0]["targets"],
            "figures": {
                method: {name: [float(v) for v in values] for name, values in by_name.items()}
                for method, by_name in metrics.items()
            },
            "coupling": couplings,
            "file": str(path),
        }
    )


def _table(
    title: str, scene: Scene, explanation: Explanation, metrics: Mapping[str, Mapping[str, Any]]
) -> Table:
    table = Table(
        "class",
        "probability",
        "share on own object",
        "pointing",
        "rollout: share",
        "pointing",
        title=title,
    )
    for k, name in enumerate(scene.names):
        cells = [
            cell
            for values in metrics.values()
            for cell in (
                f"{values['share'][k]:.2f}",
                "hit" if values["pointing"][k] >= 0.5 else "miss",
            )
        ]
        table.add_row(escape(name), f"{float(explanation.probabilities[0, k]):.3f}", *cells)
    return table


def _recognised(model: Model, scenes: Scenes) -> tuple[int, Scene]:
    """The first scene whose objects the model all recognises, and its position."""
    from gradtoken.bench import recognised

    for index, scene in recognised(model, scenes, _SCENES):
        return index, scene
    raise TargetError(
        f"the model recognised all objects in none of {_SCENES} scenes; try another --seed or "
        "fewer --objects."
    )


def _draw(scene: Scene, explanations: Mapping[str, Explanation], path: Path) -> None:
    """The scene, then per method a row of overlays, one per object."""
    from matplotlib.figure import Figure

    columns = len(scene.names) + 1
    figure = Figure(figsize=(2.3 * columns, 2.5 * len(explanations)), layout="constrained")
    axes = figure.subplots(len(explanations), columns, squeeze=False)
    for row, (method, explanation) in zip(axes, explanations.items(), strict=True):
        row[0].imshow(scene.image)
        row[0].set_title(f"{method} →", fontsize=11, parse_math=False)
        for k, axis in enumerate(row[1:]):
            axis.imshow(explanation.overlay(k))
            axis.contour(scene.masks[k], levels=[0.5], colors="white", linewidths=0.8)
            axis.set_title(f"why {scene.names[k]}?", fontsize=11, parse_math=False)
        for axis in row:
            axis.set_axis_off()
    with atomic.writing(path) as part:
        figure.savefig(part, dpi=130)
