"""`gradtoken bench`: methods side by side, by the field's figures, on a data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from gradtoken.cli import options as shared
from gradtoken.cli.app import app, complain
from gradtoken.cli.output import Output
from gradtoken.errors import DatasetError, MethodError, OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradtoken.attribution import Method
    from gradtoken.bench.run import Outcome
    from gradtoken.bench.summary import Row

EXAMPLES = """
Examples:

- `gradtoken bench --model demo --data scenes --limit 200 --out results`
- `gradtoken bench -m timm/vit_base_patch16_224 --data imagenet-seg:gtsegs_ijcv.mat`
- `gradtoken bench -m timm/vit_base_patch16_224 --data folder:val --methods gradtoken,gae,rollout`
- `gradtoken bench --methods gradtoken,gradtoken:preset=sharp,gradtoken:layers=[-1] --limit 50`
"""
_EXAMPLES = 3
"""Pictures on the qualitative sheet."""
_OURS = "gradtoken"
_COMMAS = re.compile(r",(?![^(\[]*[)\]])")
"""Commas that are not inside brackets."""


@app.command(epilog=EXAMPLES)
def bench(
    model: shared.ModelSpec = "demo",
    data: Annotated[
        str,
        typer.Option(help="scenes[:SEED], voc:DIR, coco:DIR, imagenet-seg:FILE or folder:DIR."),
    ] = "scenes",
    methods: Annotated[
        str,
        typer.Option(
            help="all, or names of `gradtoken methods` with commas between; a name can have "
            "options, as in gradtoken:preset=sharp:beta=0.7."
        ),
    ] = "all",
    metrics: Annotated[
        str,
        typer.Option(
            help="all, or some of localization, coupling, top1-random, segmentation, contrast, "
            "perturbation, insertion-deletion with commas between."
        ),
    ] = "all",
    limit: Annotated[int, typer.Option(min=1, help="Pictures to measure on.")] = 200,
    slow_limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Pictures for what runs the model many times: the last three metrics, and methods "
            "such as RISE. Default: one in twenty.",
        ),
    ] = None,
    every_picture: Annotated[
        bool,
        typer.Option("--every-picture", help="Also pictures whose classes the model gets wrong."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for records, tables and figures.")] = Path(
        "gradtoken-bench"
    ),
    checkpoint: shared.Checkpoint = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    image_size: shared.ImageSize = None,
    activation: shared.ActivationName = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Measure attribution methods side by side and write tables and figures.

    Started again with the same settings it goes on where it was. Every figure comes with its number
    of instances and a 95% bootstrap interval over pictures, and paired differences to GradToken.
    """
    from gradtoken.bench.cases import cases
    from gradtoken.bench.examples import examples
    from gradtoken.bench.identity import identity
    from gradtoken.bench.plots import bars, perturbation_curves
    from gradtoken.bench.run import run
    from gradtoken.bench.store import Store
    from gradtoken.bench.summary import differences, rows, write
    from gradtoken.datasets import open_samples

    chosen = _methods(methods)
    groups = _groups(metrics)
    slow = max(1, limit // 20) if slow_limit is None else slow_limit
    samples = open_samples(data)
    loaded = shared.load_model(
        model, checkpoint, device, dtype, image_size=image_size, activation=activation
    )
    settings = {
        **identity(loaded, chosen, groups),
        "image_size": image_size,
        "data": data,
        "slow_limit": slow,
        "every_picture": every_picture,
    }
    store = Store(out, settings)
    output = Output(as_json, quiet)
    bar = output.progress(
        TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )
    with bar:
        task = bar.add_task("", total=min(limit, len(samples)))
        outcome = run(
            loaded,
            chosen,
            samples,
            groups,
            store,
            limit=limit,
            slow_limit=slow,
            whole=not every_picture,
            progress=lambda done: bar.update(task, completed=done),
        )
    for reason in outcome.refused.values():
        complain(f"left out: {reason}")
    for name, failure in outcome.failed.items():
        complain(f"{name} failed on {failure.count} of {failure.of} pictures: {failure.reason}")
    if not outcome.pictures:
        raise DatasetError(
            f"the model recognised none of the pictures of {data}; pass --every-picture."
        )
    records = outcome.records
    title = f"{model} on {data}, {len(outcome.pictures)} pictures"
    paths = write(out, records, _OURS, title)
    serving = {name: m for name, m in chosen.items() if name in records.methods()}
    found = (case for _, case in cases(loaded, samples, whole=not every_picture))
    some = [case for case in islice(found, _EXAMPLES) if case is not None]
    figures = {
        "curves": perturbation_curves(records),
        "bars": bars(rows(records)),
        "sheet": examples(some, serving, title),
    }
    paths += [_save(figure, out / f"{name}.png") for name, figure in figures.items() if figure]
    ours = _OURS in records.methods()
    compared = [_record(row) for row in differences(records, _OURS)] if ours else []
    output.say(_table(rows(records), title))
    for line in _left_out(outcome):
        output.say(escape(line), soft_wrap=True)
    output.say("written: " + escape(", ".join(str(path) for path in paths)), soft_wrap=True)
    output.document(
        {
            "settings": settings,
            "pictures": len(outcome.pictures),
            "summary": [_record(row) for row in rows(records)],
            "differences": compared,
            "refused": outcome.refused,
            "failed": {name: asdict(failure) for name, failure in outcome.failed.items()},
            "left_out": {**asdict(outcome.left_out), "objects": outcome.objects},
            "files": [str(path) for path in paths],
        }
    )
    if outcome.failed:
        raise typer.Exit(1)


def _left_out(outcome: Outcome) -> Iterator[str]:
    """What of the data set is not measured, a line each."""
    for name, reason in outcome.left_out.names.items():
        yield f"the class {name!r} is not asked about: {reason}."
    for reason, count in outcome.objects.items():
        yield f"objects left out: {count}, {reason}."
    for reason, count in outcome.left_out.images.items():
        yield f"pictures left out: {count}, {reason}."


def _record(row: Row) -> dict[str, Any]:
    return {"method": row.method, "metric": row.metric, **row.interval._asdict()}


def _table(table: list[Row], title: str) -> Table:
    """Means only; the intervals are in the files."""
    metrics = dict.fromkeys(row.metric for row in table)
    lines = Table("metric", *dict.fromkeys(row.method for row in table), title=escape(title))
    means = {(row.metric, row.method): row.interval for row in table}
    for metric in metrics:
        cells = [means.get((metric, str(column.header))) for column in lines.columns[1:]]
        lines.add_row(metric, *("–" if c is None or not c.n else f"{c.mean:.3f}" for c in cells))
    return lines


def _methods(text: str) -> dict[str, Method]:
    from gradtoken.attribution import make_method
    from gradtoken.attribution import methods as known

    if text == "all":
        return {name: make_method(name) for name in known()}
    found = {}
    for item in _COMMAS.split(text):
        name, *options = item.strip().split(":")
        found[item.strip()] = make_method(name, **shared.parse_options(options))
    return found


def _groups(text: str) -> list[str]:
    from gradtoken.bench.scores import GROUPS
    from gradtoken.errors import did_you_mean

    if text == "all":
        return list(GROUPS)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in GROUPS:
            hint = did_you_mean(name, GROUPS) or f"; there are {', '.join(GROUPS)}."
            raise MethodError(f"no group of metrics is named {name!r}{hint}")
    return names


def _save(figure: Figure, path: Path) -> Path:
    part = path.with_suffix(".part.png")
    try:
        figure.savefig(part, dpi=150)
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from None
    finally:
        part.unlink(missing_ok=True)
    return path
