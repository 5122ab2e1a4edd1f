"""`gradtoken models` and `gradtoken methods`: the names there are."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gradtoken.cli.output import Output
from gradtoken.cli.signature import Without
from gradtoken.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from gradtoken.attribution import Method


@dataclass(frozen=True)
class ModelsOptions:
    """The options of `gradtoken models`."""

    filter: Annotated[
        str, typer.Argument(help="Part of a name, or a pattern such as *dinov2*.")
    ] = ""
    output: Annotated[Output, Without("quiet")] = field(default_factory=Output)


@dataclass(frozen=True)
class MethodsOptions:
    """The options of `gradtoken methods`."""

    output: Annotated[Output, Without("quiet")] = field(default_factory=Output)


def list_models(options: ModelsOptions) -> None:
    """List models that `--model` takes: demo, and what timm, torchvision and open_clip offer.

    Models of transformers are named by hub id or folder, as in hf/google/vit-base-patch16-224. A
    name in this list that cannot be explained is refused, with the reason; `gradtoken check` tells
    without a download.
    """
    from gradtoken.models import listing

    names = listing.list_models(options.filter)
    if not names:
        hint = did_you_mean(options.filter, listing.list_models())
        hint = hint or "; run `gradtoken models` for all."
        raise ModelError(f"no model matches {options.filter!r}{hint}")
    options.output.document(names)
    for name in names:
        options.output.say(escape(name), highlight=False)


def list_methods(options: MethodsOptions) -> None:
    """List the attribution methods and their options."""
    from gradtoken.attribution import methods

    options.output.document([_record(name, kind) for name, kind in methods().items()])
    table = Table("method", "per class", "what it is", "options (default)", "source")
    for name, kind in methods().items():
        defaults = "\n".join(f"{field.name}={field.default!r}" for field in fields(kind))
        table.add_row(
            name,
            "per prompt" if kind.of_prompts else "yes" if kind.class_aware else "no",
            escape(kind.summary),
            escape(defaults) or "-",
            escape(kind.source),
        )
    options.output.say(table)


def _record(name: str, kind: type[Method]) -> dict[str, Any]:
    return {
        "name": name,
        "class_aware": kind.class_aware,
        "of_prompts": kind.of_prompts,
        "slow": kind.slow,
        "summary": kind.summary,
        "source": kind.source,
        "options": {field.name: field.default for field in fields(kind)},
        "presets": kind.presets,
    }
