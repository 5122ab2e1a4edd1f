"""`gradtoken compare`: every method on one picture, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli import options as shared
from gradtoken.cli.app import app
from gradtoken.cli.output import Output
from gradtoken.errors import MethodError, OutputError, TargetError

EXAMPLES = """
Examples:

- `gradtoken compare photo.jpg --model timm/vit_base_patch16_224 -t tabby -t "tiger cat"`
- `gradtoken compare photo.jpg --top-k 3 --method gradtoken --method gae --method rollout`
"""


@app.command(epilog=EXAMPLES)
def compare(
    image: Annotated[str, typer.Argument(help="A picture.")],
    model: shared.ModelSpec = "demo",
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="A class id or name; repeat it. Default: predicted."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="A prompt, for models such as CLIP; repeat it."),
    ] = None,
    top_k: Annotated[
        int, typer.Option(min=1, help="Predicted classes to explain without --target.")
    ] = 2,
    method: shared.MethodNames = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("compare.png"),
    checkpoint: shared.Checkpoint = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    random_weights: shared.RandomWeights = False,
    image_size: shared.ImageSize = None,
    activation: shared.ActivationName = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Draw a sheet of one picture: a row per class, a column per method.

    Methods that cannot serve the model are left blank and named with their reason.
    """
    from gradtoken.attribution import make_method, methods
    from gradtoken.explaining import explain
    from gradtoken.explanation.explanation import Explanation
    from gradtoken.explanation.sheet import rows_of, sheet
    from gradtoken.explanation.style import Style
    from gradtoken.metrics.coupling import coupling

    chosen = [make_method(name) for name in method or methods()]
    loaded = shared.load_model(
        model, checkpoint, device, dtype, random_weights, image_size, activation
    )
    targets = shared.find_targets(loaded, target, text)
    shared.check_writable(out.parent)
    found: dict[str, Explanation | str] = {}
    output = Output(as_json, quiet)
    for one in output.track(chosen, "explaining"):
        try:
            found[one.name] = explain(loaded, image, targets, method=one, top_k=top_k)
        except MethodError as error:
            found[one.name] = str(error)
    works = {name: e for name, e in found.items() if not isinstance(e, str)}
    if not works:
        raise MethodError(f"none of the methods works on {model}: {next(iter(found.values()))}")
    measured: dict[str, float | None] = {}
    for name, one_found in works.items():
        try:
            measured[name] = coupling(one_found)
        except TargetError:
            measured[name] = None
    part = out.with_suffix(f".part{out.suffix or '.png'}")
    try:
        sheet(rows_of(found, Style()), f"{Path(image).name}, {model}").savefig(part, dpi=150)
        part.replace(out)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {out}: {error}.") from None
    finally:
        part.unlink(missing_ok=True)
    table = Table("method", "coupling")
    for name, result in found.items():
        value = measured.get(name)
        number = "–" if value is None else f"{value:.3f}"
        table.add_row(name, escape(result) if isinstance(result, str) else number)
    output.say(table)
    output.say(f"picture: {escape(str(out))}", soft_wrap=True)
    output.document(
        {
            "model": model,
            "picture": image,
            "targets": next(iter(works.values())).to_dict()[0]["targets"],
            "coupling": measured,
            "refused": {name: text for name, text in found.items() if isinstance(text, str)},
            "file": str(out),
        }
    )
