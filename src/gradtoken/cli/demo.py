"""`gradtoken demo`: every object of a test scene explained, and the truth beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli import options as shared
from gradtoken.cli.app import app
from gradtoken.cli.output import Output
from gradtoken.errors import OutputError, TargetError

if TYPE_CHECKING:
    from gradtoken.datasets import Scene, Scenes
    from gradtoken.explanation.explanation import Explanation
    from gradtoken.models import Model

EXAMPLES = """
Examples:

- `gradtoken demo`
- `gradtoken demo --seed 7 --objects 4 --out my-demo`
"""
_LOOK_AT = 200


@app.command(epilog=EXAMPLES)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("gradtoken-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Which scene.")] = 70,
    objects: Annotated[int, typer.Option(min=2, max=5, help="Objects in the scene.")] = 3,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Draw a test scene, explain every object in it with the bundled model, and check the maps.

    The objects are drawn in an art style the model never saw. The scene is the first of the seed's
    that the model recognises whole, and the table says how many it passed over.
    """
    from gradtoken.datasets import Scenes
    from gradtoken.explaining import explain
    from gradtoken.metrics.coupling import coupling
    from gradtoken.metrics.localization import Coverage

    shared.check_writable(out)
    model = shared.load_model("demo", None, "cpu", None)
    scenes = Scenes("test", objects=objects, seed=seed)
    index, scene = _recognised(model, scenes)
    targets = list(scene.labels)
    found = {
        name: explain(model, scene.image, targets, method=name) for name in ("gradtoken", "rollout")
    }
    ours = found["gradtoken"]
    coverage = Coverage.of_scene(scene, ours.boxes.grid)

    figures = {name: coverage.figures(e.tokens[0]) for name, e in found.items()}
    couplings = {name: coupling(e) for name, e in found.items() if len(targets) > 1}
    ours.save(out)
    picture = out / "demo.png"
    _figure(scene, found, picture)

    output = Output(as_json, quiet)
    output.say(_table(f"test scene {index} of seed {seed}", scene, ours, figures))
    if couplings:
        output.say(
            "semantic coupling (1 = same map for every class): "
            + ", ".join(f"{name} {value:.2f}" for name, value in couplings.items())
        )
    if index:
        output.say(f"passed over {index} scene(s) whose objects the model does not all name.")
    output.say(f"picture: {escape(str(picture))}", soft_wrap=True)
    output.document(
        {
            "seed": seed,
            "scene": index,
            "targets": ours.to_dict()[0]["targets"],
            "figures": {
                method: {name: [float(v) for v in values] for name, values in of_method.items()}
                for method, of_method in figures.items()
            },
            "coupling": couplings,
            "file": str(picture),
        }
    )


def _table(
    title: str, scene: Scene, ours: Explanation, figures: dict[str, dict[str, Any]]
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
            for figure in figures.values()
            for cell in (
                f"{figure['share'][k]:.2f}",
                "hit" if figure["pointing"][k] >= 0.5 else "miss",
            )
        ]
        table.add_row(escape(name), f"{float(ours.probabilities[0, k]):.3f}", *cells)
    return table


def _recognised(model: Model, scenes: Scenes) -> tuple[int, Scene]:
    from gradtoken.bench import recognised

    for index, scene in recognised(model, scenes, _LOOK_AT):
        return index, scene
    raise TargetError(
        f"the model recognised all objects in none of {_LOOK_AT} scenes; try another --seed or "
        "fewer --objects."
    )


def _figure(scene: Scene, found: dict[str, Explanation], path: Path) -> None:
    """The scene, then per method a row of overlays, one per object."""
    from matplotlib.figure import Figure

    columns = len(scene.names) + 1
    figure = Figure(figsize=(2.3 * columns, 2.5 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), columns, squeeze=False)
    for row, (method, explanation) in zip(axes, found.items(), strict=True):
        row[0].imshow(scene.image)
        row[0].set_title(f"{method} →", fontsize=11, parse_math=False)
        for k, axis in enumerate(row[1:]):
            axis.imshow(explanation.overlay(k))
            axis.contour(scene.masks[k], levels=[0.5], colors="white", linewidths=0.8)
            axis.set_title(f"why {scene.names[k]}?", fontsize=11, parse_math=False)
        for axis in row:
            axis.set_axis_off()
    work = path.with_suffix(".part.png")
    try:
        figure.savefig(work, dpi=130)
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from None
