"""`gradtoken explain`: maps for pictures on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from gradtoken.cli import options as shared
from gradtoken.cli.app import app, complain, console
from gradtoken.errors import ImageError, OutputError

if TYPE_CHECKING:
    from gradtoken.explanation import Explanation

EXAMPLES = """
Examples:

- `gradtoken explain photo.jpg --model timm/vit_base_patch16_224 --top-k 3`
- `gradtoken explain photo.jpg -m timm/vit_base_patch16_224 -t tabby -t "tiger cat"`
- `gradtoken explain photos/ --model timm/vit_small_patch16_224 --checkpoint mine.safetensors`
- `gradtoken explain photo.jpg -m open_clip/ViT-B-32/openai --text "a cat" --text "a dog"`
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
    top_k: Annotated[int, typer.Option(help="Predicted classes to explain without --target.")] = 1,
    method: shared.MethodName = "gradtoken",
    option: shared.MethodOptions = None,
    out: Annotated[Path, typer.Option(help="Folder for one folder per picture.")] = Path(
        "gradtoken-out"
    ),
    checkpoint: shared.Checkpoint = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    random_weights: shared.RandomWeights = False,
    image_size: shared.ImageSize = None,
) -> None:
    """Explain why a model gives its classes to pictures: one map per picture and class.

    Each picture gets a folder with an overlay per class, a summary figure, the raw token maps and
    a manifest. A picture that cannot be read is reported and does not stop the rest; the exit code
    is then 1.
    """
    from gradtoken.attribution import make_method
    from gradtoken.explaining import explain as run
    from gradtoken.saving import refuse_link, safe_name, unique_names

    chosen = make_method(method, **shared.parse_options(option))
    paths = shared.find_images(images)
    loaded = shared.load_model(model, checkpoint, device, dtype, random_weights, image_size)
    targets = shared.find_targets(loaded, target, text)
    shared.check_writable(out)
    names = unique_names([safe_name(path.stem) for path in paths])
    table = Table("picture", "class", "probability", "score", "folder")
    failed = 0
    jobs = list(zip(paths, names, strict=True))
    for path, name in track(jobs, "explaining", console=console, disable=not console.is_terminal):
        try:
            explanation = run(loaded, path, targets, method=chosen, top_k=top_k)
            refuse_link(out / name)
            (folder,) = explanation.save(out / name)
            _add_rows(table, path, explanation, folder)
        except (ImageError, OutputError) as error:
            complain(str(error))
            failed += 1
    if table.row_count:
        console.print(table)
    if failed:
        complain(f"{failed} of {len(paths)} pictures could not be explained.")
        raise typer.Exit(1)


def _add_rows(table: Table, path: Path, explanation: Explanation, folder: Path) -> None:
    for k, label in enumerate(explanation.labels[0]):
        table.add_row(
            escape(path.name) if k == 0 else "",
            escape(label),
            f"{float(explanation.probabilities[0, k]):.3f}",
            f"{float(explanation.scores[0, k]):.2f}",
            escape(str(folder)) if k == 0 else "",
        )
