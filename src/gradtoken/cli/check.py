"""`gradtoken check`: whether a model can be explained, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli.options import ModelOptions
from gradtoken.cli.output import Output
from gradtoken.cli.signature import Without
from gradtoken.errors import ModelError

if TYPE_CHECKING:
    from gradtoken.checking import Check

EXAMPLES = """
Examples:

- `gradtoken check timm/vit_base_patch16_224`
- `gradtoken check hf/dinov2 --json`
- `gradtoken check open_clip/ViT-B-32/openai --pretrained`
"""


@dataclass(frozen=True)
class CheckOptions:
    """The options of `gradtoken check`."""

    spec: Annotated[str, typer.Argument(help="A model, named as for --model.")]
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="With its weights, not with random ones.")
    ] = False
    output: Output = field(default_factory=Output)
    loading: Annotated[ModelOptions, Without("random_weights")] = field(
        default_factory=ModelOptions
    )


def run(options: CheckOptions) -> None:
    """Build a model, verify how it is read, and run every method on it.

    Weights are random unless --pretrained is given. Each thing verified is printed with its number.
    The exit code is 1 if GradToken does not work on the model.
    """
    from gradtoken.checking import check
    from gradtoken.models import describes_itself

    spec, output = options.spec, options.output
    with_weights = options.pretrained or options.loading.checkpoint or describes_itself(spec)
    loading = replace(options.loading, random_weights=not with_weights)
    try:
        result = check(loading.load(spec))
    except ModelError as error:
        raise ModelError(f"GradToken does not work on {spec}: {error}") from None
    output.say(_table(result))
    output.document({"works": result.works, **result.to_dict()})
    if not result.works:
        raise typer.Exit(1)


def _table(result: Check) -> Table:
    table = Table(show_header=False, title=escape(result.spec), title_justify="left")
    rows, columns = result.grid
    table.add_row("blocks followed", str(result.blocks))
    table.add_row("attention calls", str(result.attention_calls))
    table.add_row("token grid", f"{rows}x{columns}, {result.prefix} other tokens")
    table.add_row("readout", escape(result.readout))
    table.add_row("probabilities", result.activation)
    for fact in result.verified:
        bound = f"at {'least' if fact.least else 'most'} {fact.allowed:.3g}"
        table.add_row(fact.what, f"{fact.value:.3g} ({bound})")
    for name, verdict in result.methods.items():
        table.add_row(name, escape(verdict))
    return table
