"""`gradtoken compare`: every method on one image, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken import atomic
from gradtoken.attribution.built_in import FLOOR
from gradtoken.cli import options as shared
from gradtoken.cli.output import Output
from gradtoken.errors import MethodError, OutputError, TargetError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradtoken.explanation.explanation import Explanation

EXAMPLES = """
Examples:

- `gradtoken compare photo.jpg --model timm/vit_base_patch16_224 -t tabby -t "tiger cat"`
- `gradtoken compare photo.jpg --top-k 3 --method gradtoken --method gae --method rollout`
"""


@dataclass(frozen=True)
class CompareOptions:
    """The options of `gradtoken compare`."""

    image: Annotated[str, typer.Argument(help="An image.")]
    model: shared.ModelSpec = "demo"
    target: shared.Targets = None
    text: shared.Prompts = None
    top_k: Annotated[
        int, typer.Option(min=1, help="Predicted classes to explain without --target.")
    ] = 2
    finer: shared.FinerWeight = None
    method: shared.MethodNames = None
    out: Annotated[Path, typer.Option(help="The image to write.")] = Path("compare.png")
    loading: shared.ModelOptions = field(default_factory=shared.ModelOptions)
    output: Output = field(default_factory=Output)


def run(options: CompareOptions) -> None:
    """Draw a sheet of one image: a row per class, a column per method, and a random map.

    Methods that cannot serve the model are left blank and named with their reason.
    """
    from gradtoken.explaining import explain
    from gradtoken.explanation.comparison import comparison_figure, comparison_rows
    from gradtoken.explanation.style import Style

    names = options.method and [*options.method, *({FLOOR} - set(options.method))]
    methods = shared.make_methods(names)
    model = options.loading.load(options.model)
    methods = methods if options.method else shared.usual_methods(methods, model)
    targets = shared.find_targets(model, options.target, options.text, finer=options.finer)
    image, out, output = options.image, options.out, options.output
    shared.check_writable(out.parent)
    results: dict[str, Explanation | str] = {}
    for method in output.track(methods, "explaining"):
        try:
            results[method.name] = explain(
                model, image, targets, method=method, top_k=options.top_k
            )
        except MethodError as error:
            results[method.name] = str(error)
    explanations = {name: e for name, e in results.items() if not isinstance(e, str)}
    unsupported = {name: reason for name, reason in results.items() if isinstance(reason, str)}
    if unsupported and not explanations.keys() - {FLOOR}:
        reason = next(iter(unsupported.values()))
        raise MethodError(f"none of the methods works on {options.model}: {reason}")
    couplings = {name: _coupling(explanation) for name, explanation in explanations.items()}
    rows = comparison_rows(results, Style())
    _save(comparison_figure(rows, f"{Path(image).name}, {options.model}"), out)
    output.say(_table(list(results), couplings, unsupported))
    output.say(f"image: {escape(str(out))}", soft_wrap=True)
    output.document(
        {
            "model": options.model,
            "image": image,
            "targets": next(iter(explanations.values())).to_dict()[0]["targets"],
            "coupling": couplings,
            "refused": unsupported,
            "file": str(out),
        }
    )


def _coupling(explanation: Explanation) -> float | None:
    """The semantic coupling, or None where there is a single target."""
    from gradtoken.metrics.coupling import coupling

    try:
        return coupling(explanation)
    except TargetError:
        return None


def _save(figure: Figure, path: Path) -> None:
    try:
        with atomic.writing(path) as part:
            figure.savefig(part, dpi=150, format=path.suffix[1:] or "png")
    except ValueError as error:  # a suffix that is no image format
        raise OutputError(f"cannot write {path}: {error}.") from None


def _table(
    names: list[str], couplings: Mapping[str, float | None], unsupported: Mapping[str, str]
) -> Table:
    table = Table("method", "coupling")
    for name in names:
        value = couplings.get(name)
        number = "–" if value is None else f"{value:.3f}"
        table.add_row(name, escape(unsupported[name]) if name in unsupported else number)
    return table
