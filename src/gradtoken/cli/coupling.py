"""`gradtoken coupling`: how alike the maps of different classes are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli import options as shared
from gradtoken.cli.console import complain
from gradtoken.cli.output import Output
from gradtoken.errors import ImageError, MethodError, TargetError

if TYPE_CHECKING:
    from gradtoken.attribution import Method
    from gradtoken.models import Model

EXAMPLES = """
Example:

- `gradtoken coupling photo.jpg --model timm/vit_base_patch16_224 --top-k 3`
"""


@dataclass(frozen=True)
class CouplingOptions:
    """The options of `gradtoken coupling`."""

    images: shared.Images
    model: shared.ModelSpec = "demo"
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", help="A class id or name; at least two. Default: predicted."
        ),
    ] = None
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="A prompt, for models such as CLIP; at least two."),
    ] = None
    top_k: Annotated[int, typer.Option(help="Predicted classes to compare without --target.")] = 2
    finer: shared.FinerWeight = None
    method: shared.MethodNames = None
    loading: shared.ModelOptions = field(default_factory=shared.ModelOptions)
    output: Output = field(default_factory=Output)


@dataclass
class _Results:
    """The couplings of each image by method; methods that do not work; images that failed."""

    values: dict[str, list[float]]
    unsupported: dict[str, str] = field(default_factory=dict)
    failed: list[dict[str, str]] = field(default_factory=list)

    def means(self) -> dict[str, float]:
        """The mean over images, of each method that has any."""
        return {name: sum(values) / len(values) for name, values in self.values.items() if values}


def run(options: CouplingOptions) -> None:
    """Print the semantic coupling of each method: the correlation between classes' maps.

    1 means that the maps do not depend on the class asked for (raw attention and rollout, by
    construction); lower is better, and slightly below 0 is ideal for objects side by side.
    """
    methods = shared.make_methods(options.method)
    paths = shared.find_images(options.images)
    model = options.loading.load(options.model)
    methods = methods if options.method else shared.usual_methods(methods, model)
    targets = shared.find_targets(model, options.target, options.text, finer=options.finer)
    named = len(set(targets)) if isinstance(targets, list) else options.top_k
    if named < 2:
        raise TargetError("coupling compares classes: give --target twice, or --top-k 2 or more.")
    output = options.output
    results = _Results({method.name: [] for method in methods})
    for path in output.track(paths, "measuring"):
        _measure(results, model, path, targets, methods, options.top_k)
    unsupported, failed = results.unsupported, results.failed
    if len(unsupported) == len(methods):
        reason = next(iter(unsupported.values()))
        raise MethodError(f"none of the methods works on {options.model}: {reason}")
    table = _table(results)
    if table.row_count:
        output.say(table)
    output.document(
        {
            "model": options.model,
            "images": len(paths) - len(failed),
            "coupling": results.means(),
            "refused": unsupported,
            "failed": failed,
        }
    )
    if failed:
        complain(f"{len(failed)} of {len(paths)} images could not be read.")
        raise typer.Exit(1)


def _measure(
    results: _Results, model: Model, path: Path, targets: Any, methods: Sequence[Method], top_k: int
) -> None:
    """Add the coupling of every method on one image."""
    from gradtoken.explaining import explain
    from gradtoken.metrics.coupling import coupling

    try:
        for method in methods:
            if method.name in results.unsupported:
                continue
            try:
                explanation = explain(model, path, targets, method=method, top_k=top_k)
                results.values[method.name].append(coupling(explanation))
            except MethodError as error:
                results.unsupported[method.name] = str(error)
    except ImageError as error:
        complain(str(error))
        results.failed.append({"image": str(path), "error": str(error)})


def _table(results: _Results) -> Table:
    table = Table("method", "coupling", "images")
    for name, mean in results.means().items():
        table.add_row(name, f"{mean:.3f}", str(len(results.values[name])))
    for name, reason in results.unsupported.items():
        table.add_row(name, escape(reason), "0")
    return table
