"""`gradtoken check`: whether a model can be explained, and how it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli import options as shared
from gradtoken.cli.app import app
from gradtoken.cli.output import Output
from gradtoken.errors import ModelError

if TYPE_CHECKING:
    from gradtoken.checking import Check

EXAMPLES = """
Examples:

- `gradtoken check timm/vit_base_patch16_224`
- `gradtoken check hf/dinov2 --json`
- `gradtoken check open_clip/ViT-B-32/openai --pretrained`
"""


@app.command(epilog=EXAMPLES)
def check(
    spec: Annotated[str, typer.Argument(help="A model, named as for --model.")],
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="With its weights, not with random ones.")
    ] = False,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
    checkpoint: shared.Checkpoint = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    image_size: shared.ImageSize = None,
    activation: shared.ActivationName = None,
) -> None:
    """Build a model, verify how it is read, and run every method on it.

    Weights are random unless --pretrained is given. Each thing verified is printed with its number.
    The exit code is 1 if GradToken does not work on the model.
    """
    from gradtoken.checking import check as run
    from gradtoken.models import describes_itself

    bare = not (pretrained or checkpoint or describes_itself(spec))
    try:
        found = run(
            shared.load_model(spec, checkpoint, device, dtype, bare, image_size, activation)
        )
    except ModelError as error:
        raise ModelError(f"GradToken does not work on {spec}: {error}") from None
    output = Output(as_json, quiet)
    output.say(_table(found))
    output.document({"works": found.works, **found.to_dict()})
    if not found.works:
        raise typer.Exit(1)


def _table(found: Check) -> Table:
    table = Table(show_header=False, title=escape(found.spec), title_justify="left")
    rows, columns = found.grid
    table.add_row("blocks followed", str(found.blocks))
    table.add_row("attention calls", str(found.attention_calls))
    table.add_row("token grid", f"{rows}x{columns}, {found.prefix} other tokens")
    table.add_row("readout", escape(found.readout))
    table.add_row("probabilities", found.activation)
    for fact in found.verified:
        bound = f"at {'least' if fact.least else 'most'} {fact.allowed:.3g}"
        table.add_row(fact.what, f"{fact.value:.3g} ({bound})")
    for name, verdict in found.methods.items():
        table.add_row(name, escape(verdict))
    return table
