"""`gradtoken models` and `gradtoken methods`: what there is."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli import options as shared
from gradtoken.cli.app import app
from gradtoken.cli.output import Output
from gradtoken.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from gradtoken.attribution import Method


@app.command()
def models(
    filter: Annotated[
        str, typer.Argument(help="Part of a name, or a pattern such as *dinov2*.")
    ] = "",
    as_json: shared.Json = False,
) -> None:
    """List models that `--model` takes: demo, and what timm, torchvision and open_clip offer.

    Models of transformers are named by hub id or folder, as in hf/google/vit-base-patch16-224. A
    name in this list that cannot be explained is refused, with the reason; `gradtoken check` tells
    without a download.
    """
    from gradtoken.models.listing import list_models

    names = list_models(filter)
    if not names:
        hint = did_you_mean(filter, list_models()) or "; run `gradtoken models` for all."
        raise ModelError(f"no model matches {filter!r}{hint}")
    output = Output(as_json)
    output.document(names)
    for name in names:
        output.say(escape(name), highlight=False)


@app.command()
def methods(as_json: shared.Json = False) -> None:
    """List the attribution methods and their options."""
    from gradtoken.attribution import methods as find

    output = Output(as_json)
    output.document([_record(name, kind) for name, kind in find().items()])
    table = Table("method", "per class", "what it is", "options (default)", "source")
    for name, kind in find().items():
        options = "\n".join(f"{field.name}={field.default!r}" for field in fields(kind))
        table.add_row(
            name,
            "yes" if kind.class_aware else "no",
            escape(kind.summary),
            escape(options) or "-",
            escape(kind.source),
        )
    output.say(table)


def _record(name: str, kind: type[Method]) -> dict[str, Any]:
    return {
        "name": name,
        "class_aware": kind.class_aware,
        "slow": kind.slow,
        "summary": kind.summary,
        "source": kind.source,
        "options": {field.name: field.default for field in fields(kind)},
        "presets": kind.presets,
    }
