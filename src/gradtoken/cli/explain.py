"""`gradtoken explain`: maps for images on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli import options as shared
from gradtoken.cli.console import complain
from gradtoken.cli.output import Output
from gradtoken.errors import ImageError, OutputError, TargetError

if TYPE_CHECKING:
    from gradtoken.explanation.explanation import Explanation
    from gradtoken.models import Model
    from gradtoken.report import Report

EXAMPLES = """
Examples:

- `gradtoken explain photo.jpg --model timm/vit_base_patch16_224 --top-k 3`
- `gradtoken explain photo.jpg -m timm/vit_base_patch16_224 -t tabby -t "tiger cat"`
- `gradtoken explain photos/ --model timm/vit_small_patch16_224 --checkpoint mine.safetensors`
- `gradtoken explain photo.jpg -m open_clip/ViT-B-32/openai --text "a cat" --text "a dog"`
- `gradtoken explain photos/ --model timm/vit_base_patch16_224 --top-k 3 --report report.html`
- `gradtoken explain photos/ -m timm/vit_small_patch16_224 --activation sigmoid --above 0.5`
- `gradtoken explain photo.jpg --model demo --option preset=contrastive --top-k 2`
"""


@dataclass(frozen=True)
class ExplainOptions:
    """The options of `gradtoken explain`."""

    images: shared.Images
    model: shared.ModelSpec = "demo"
    target: shared.Targets = None
    text: shared.Prompts = None
    top_k: Annotated[
        int | None, typer.Option(help="Predicted classes to explain without --target; default: 1.")
    ] = None
    above: shared.Above = None
    finer: shared.FinerWeight = None
    method: shared.MethodName = "gradtoken"
    option: shared.OptionPairs = None
    out: Annotated[Path, typer.Option(help="Folder for one folder per image.")] = Path(
        "gradtoken-out"
    )
    report: Annotated[
        Path | None,
        typer.Option(help="Also write one HTML page with all images, maps and numbers."),
    ] = None
    loading: shared.ModelOptions = field(default_factory=shared.ModelOptions)
    output: Output = field(default_factory=Output)


def run(options: ExplainOptions) -> None:
    """Explain why a model gives its classes to images: one map per image and class.

    Each image gets a folder with an overlay per class, a summary figure, the raw token maps and
    a manifest; --report puts all of them on one page. An image that cannot be read is reported
    and does not stop the rest; the exit code is then 1.
    """
    from gradtoken.attribution import make_method
    from gradtoken.explanation.saving import safe_name, unique_names

    method = make_method(options.method, **shared.parse_options(options.option))
    paths = shared.find_images(options.images)
    model = options.loading.load(options.model)
    if options.above is not None and options.top_k is not None:
        raise TargetError("--above and --top-k both choose predicted classes; give one.")
    targets = shared.find_targets(model, options.target, options.text, options.above, options.finer)
    shared.check_writable(options.out)
    folders = [options.out / name for name in unique_names([safe_name(p.stem) for p in paths])]
    output = options.output
    table = Table("image", "class", "probability", "score", "evidence", "folder")
    failed = 0
    top_k = 1 if options.top_k is None else options.top_k
    results = _explain(model, paths, targets, method=method, top_k=top_k)
    report = _report(options.report, f"{options.method} on {options.model}")
    with report as page, output.progress() as bar:
        for index, result in bar.track(results, total=len(paths), description="explaining"):
            path, folder = paths[index], folders[index]
            try:
                explanation = _save(result, path, folder)
            except (ImageError, TargetError, OutputError) as error:
                complain(str(error))
                output.document({"image": str(path), "error": str(error)})
                failed += 1
                if page:
                    page.fail(str(path), str(error))
                continue
            if page:
                page.add(explanation)
            _add_rows(table, path, explanation, folder)
            output.document(_record(path, explanation, folder))
    if table.row_count:
        output.say(table)
    if options.report:
        output.say(f"report: {escape(str(options.report))}", soft_wrap=True)
    if failed:
        complain(f"{failed} of {len(paths)} images could not be explained.")
        raise typer.Exit(1)


def _explain(
    model: Model, paths: list[Path], targets: Any, **options: Any
) -> Iterator[tuple[int, Explanation | ImageError | TargetError]]:
    """The explanation or the error of each image, in order; the model runs on batches."""
    from gradtoken.explaining import explain_each

    errors: dict[int, ImageError | TargetError] = {}
    index = 0
    for explanation in explain_each(model, paths, targets, on_error=errors.__setitem__, **options):
        while index in errors:
            yield index, errors[index]
            index += 1
        yield index, explanation
        index += 1
    yield from ((last, errors[last]) for last in range(index, len(paths)))


def _save(result: Explanation | ImageError | TargetError, path: Path, folder: Path) -> Explanation:
    """Save an explanation, or raise the error there is in its place."""
    from gradtoken.explanation.saving import check_not_link

    if isinstance(result, TargetError):
        raise TargetError(f"{path}: {result}")
    if isinstance(result, ImageError):
        raise result
    check_not_link(folder)
    result.save(folder)
    return result


def _report(path: Path | None, title: str) -> AbstractContextManager[Report | None]:
    """The HTML report to write, or nothing without a path."""
    if path is None:
        return nullcontext()
    from gradtoken.report import Report

    return Report(path, title=title)


def _add_rows(table: Table, path: Path, explanation: Explanation, folder: Path) -> None:
    evidence = explanation.evidence[0]
    for k, label in enumerate(explanation.labels[0]):
        table.add_row(
            escape(path.name) if k == 0 else "",
            escape(label),
            _probability(float(explanation.probabilities[0, k])),
            f"{float(explanation.scores[0, k]):.2f}",
            evidence[k].words() or f"{float(evidence.positive[k]):.0%} positive",
            escape(str(folder)) if k == 0 else "",
        )


def _probability(value: float) -> str:
    """A dash where the target is no class or the outputs are no probabilities."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def _record(path: Path, explanation: Explanation, folder: Path) -> dict[str, Any]:
    """The manifest, and where the files are."""
    return {"image": str(path), "folder": str(folder), **explanation.to_dict()[0]}
