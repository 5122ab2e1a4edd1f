"""`gradtoken coupling`: how alike the maps of different classes are."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli import options as shared
from gradtoken.cli.app import app, complain
from gradtoken.cli.output import Output
from gradtoken.errors import ImageError, MethodError, TargetError

EXAMPLES = """
Example:

- `gradtoken coupling photo.jpg --model timm/vit_base_patch16_224 --top-k 3`
"""


@app.command(epilog=EXAMPLES)
def coupling(
    images: shared.Images,
    model: shared.ModelSpec = "demo",
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", help="A class id or name; at least two. Default: predicted."
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="A prompt, for models such as CLIP; at least two."),
    ] = None,
    top_k: Annotated[int, typer.Option(help="Predicted classes to compare without --target.")] = 2,
    method: shared.MethodNames = None,
    checkpoint: shared.Checkpoint = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    random_weights: shared.RandomWeights = False,
    image_size: shared.ImageSize = None,
    activation: shared.ActivationName = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Print the semantic coupling of each method: the correlation between classes' maps.

    1 means that the maps do not depend on the class asked for (raw attention and rollout, by
    construction); lower is better, and slightly below 0 is ideal for objects side by side.
    """
    from gradtoken.attribution import make_method, methods
    from gradtoken.explaining import explain as run
    from gradtoken.metrics.coupling import coupling as measure

    chosen = [make_method(name) for name in method or methods()]
    paths = shared.find_images(images)
    loaded = shared.load_model(
        model, checkpoint, device, dtype, random_weights, image_size, activation
    )
    targets = shared.find_targets(loaded, target, text)
    if (targets and len(set(targets)) < 2) or (targets is None and top_k < 2):
        raise TargetError("coupling compares classes: give --target twice, or --top-k 2 or more.")
    values: dict[str, list[float]] = {one.name: [] for one in chosen}
    output = Output(as_json, quiet)
    failed, refused = [], {}
    for path in output.track(paths, "measuring"):
        try:
            for one in chosen:
                if one.name in refused:
                    continue
                try:
                    found = run(loaded, path, targets, method=one, top_k=top_k)
                    values[one.name].append(measure(found))
                except MethodError as error:
                    refused[one.name] = str(error)
        except ImageError as error:
            complain(str(error))
            failed.append({"picture": str(path), "error": str(error)})
    if len(refused) == len(chosen):
        raise MethodError(f"none of the methods works on {model}: {next(iter(refused.values()))}")
    means = {name: sum(every) / len(every) for name, every in values.items() if every}
    table = Table("method", "coupling", "pictures")
    for name, mean in means.items():
        table.add_row(name, f"{mean:.3f}", str(len(values[name])))
    for name, reason in refused.items():
        table.add_row(name, escape(reason), "0")
    if table.row_count:
        output.say(table)
    output.document(
        {
            "model": model,
            "pictures": len(paths) - len(failed),
            "coupling": means,
            "refused": refused,
            "failed": failed,
        }
    )
    if failed:
        complain(f"{len(failed)} of {len(paths)} pictures could not be read.")
        raise typer.Exit(1)
