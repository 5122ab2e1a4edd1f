"""`gradtoken models` and `gradtoken methods`: what there is."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli.app import app, console
from gradtoken.errors import ModelError, did_you_mean


@app.command()
def models(
    filter: Annotated[
        str, typer.Argument(help="Part of a name, or a pattern such as *dinov2*.")
    ] = "",
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
    for name in names:
        console.print(escape(name), highlight=False)


@app.command()
def methods() -> None:
    """List the attribution methods and their options."""
    from gradtoken.attribution import methods as find

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
    console.print(table)
