"""`gradtoken explain`: maps for pictures on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli import options as shared
from gradtoken.cli.app import app, complain
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


@app.command(epilog=EXAMPLES)
def explain(
    images: shared.Images,
    model: shared.ModelSpec = "demo",
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="A class id or name; repeat it. Default: predicted."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="A prompt, for models such as CLIP; repeat it."),
    ] = None,
    top_k: shared.TopK = None,
    above: shared.Above = None,
    method: shared.MethodName = "gradtoken",
    option: shared.MethodOptions = None,
    out: Annotated[Path, typer.Option(help="Folder for one folder per picture.")] = Path(
        "gradtoken-out"
    ),
    report: Annotated[
        Path | None,
        typer.Option(help="Also write one HTML page with all pictures, maps and numbers."),
    ] = None,
    checkpoint: shared.Checkpoint = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    random_weights: shared.RandomWeights = False,
    image_size: shared.ImageSize = None,
    activation: shared.ActivationName = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Explain why a model gives its classes to pictures: one map per picture and class.

    Each picture gets a folder with an overlay per class, a summary figure, the raw token maps and
    a manifest; --report puts all of them on one page. A picture that cannot be read is reported
    and does not stop the rest; the exit code is then 1.
    """
    from gradtoken.attribution import make_method
    from gradtoken.explanation.saving import refuse_link, safe_name, unique_names

    chosen = make_method(method, **shared.parse_options(option))
    paths = shared.find_images(images)
    loaded = shared.load_model(
        model, checkpoint, device, dtype, random_weights, image_size, activation
    )
    if above is not None and top_k is not None:
        raise TargetError("--above and --top-k both choose predicted classes; give one.")
    targets = shared.find_targets(loaded, target, text, above)
    shared.check_writable(out)
    names = unique_names([safe_name(path.stem) for path in paths])
    output = Output(as_json, quiet)
    table = Table("picture", "class", "probability", "score", "evidence", "folder")
    failed = 0
    top_k = 1 if top_k is None else top_k
    found = _each(loaded, paths, targets, method=chosen, top_k=top_k)
    with _page(report, f"{method} on {model}") as page, output.progress() as bar:
        for index, explanation in bar.track(found, total=len(paths), description="explaining"):
            path, folder = paths[index], out / names[index]
            try:
                if isinstance(explanation, TargetError):
                    raise TargetError(f"{path}: {explanation}")
                if isinstance(explanation, ImageError):
                    raise explanation
                refuse_link(folder)
                explanation.save(folder)
            except (ImageError, TargetError, OutputError) as error:
                complain(str(error))
                output.document({"picture": str(path), "error": str(error)})
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
    if report:
        output.say(f"report: {escape(str(report))}", soft_wrap=True)
    if failed:
        complain(f"{failed} of {len(paths)} pictures could not be explained.")
        raise typer.Exit(1)


def _each(
    model: Model, paths: list[Path], targets: Any, **options: Any
) -> Iterator[tuple[int, Explanation | ImageError | TargetError]]:
    """What comes of each picture, in order: pictures go through the model in batches."""
    from gradtoken.explaining import explain_each

    errors: dict[int, ImageError | TargetError] = {}
    index = 0
    for explanation in explain_each(model, paths, targets, on_error=errors.__setitem__, **options):
        while index in errors:
            yield index, errors[index]
            index += 1
        yield index, explanation
        index += 1
    yield from ((left, errors[left]) for left in range(index, len(paths)))


def _page(path: Path | None, title: str) -> AbstractContextManager[Report | None]:
    """The report to be written, if one is asked for."""
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
    return {"picture": str(path), "folder": str(folder), **explanation.to_dict()[0]}
