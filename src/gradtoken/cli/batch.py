"""`gradtoken batch`: maps for a whole data set, and a report on them."""

from __future__ import annotations

import json as jsons
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from gradtoken.cli import options as shared
from gradtoken.cli.console import complain, console, problems
from gradtoken.cli.signature import as_command
from gradtoken.errors import TargetError

if TYPE_CHECKING:
    from gradtoken.batch.job import Job, Summary
    from gradtoken.batch.target_spec import TargetSpec

HELP = (
    "Explain every image of a data set, and go on after an interruption.\n\n"
    "`batch SOURCE …` is short for `batch run SOURCE …`."
)
EXAMPLES = """
Examples:

- `gradtoken batch photos/ --model timm/vit_base_patch16_224 --targets top:3 --out maps`
- `gradtoken batch "shards/{000..127}.tar" --model demo --targets column:cls --out maps`
- `gradtoken batch photos.parquet --targets "banana,rocket" --out maps --engine ray --workers 2`
- `gradtoken batch photos.parquet --targets "banana,rocket" --out maps --engine ray --resume`
- `gradtoken batch photos/ -m hf/mine --activation sigmoid --above 0.5 --out maps`
- `gradtoken batch report maps`
"""


class _RunByDefault(TyperGroup):
    """`batch SOURCE …` is `batch run SOURCE …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@dataclass(frozen=True)
class RunOptions:
    """The options of `gradtoken batch run`."""

    source: Annotated[
        str,
        typer.Argument(
            help="A folder of images, tar or Parquet files, a pattern, a Parquet, CSV or tar "
            "file, or a folder of Hugging Face datasets; a path or a URL that fsspec reads."
        ),
    ]
    out: Annotated[str, typer.Option(help="Folder of the results, a path or a URL.")]
    model: shared.ModelSpec = "demo"
    targets: Annotated[
        str | None,
        typer.Option(
            help="top:K, above:P, all, class ids or names with commas between, column:NAME (each "
            "row's own) or text:FILE (a prompt on each line); default: top:1."
        ),
    ] = None
    above: shared.Above = None
    finer: shared.FinerWeight = None
    method: shared.MethodName = "gradtoken"
    option: shared.OptionPairs = None
    engine: Annotated[str, typer.Option(help="local, or ray for several workers.")] = "local"
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is in --out.")
    ] = False
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images that go through the model together.")
    ] = 16
    shard_size: Annotated[int, typer.Option(min=1, help="Images in a file of results.")] = 1024
    max_errors: Annotated[
        int | None, typer.Option(min=0, help="Stop when more images than this fail.")
    ] = None
    workers: Annotated[
        int | None, typer.Option(min=1, help="Models at work at once; --engine ray.")
    ] = None
    num_gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs of a worker, as 0.5; --engine ray.")
    ] = None
    address: Annotated[
        str | None,
        typer.Option(
            help="A running Ray cluster: HOST:PORT from a machine of it, ray://HOST:PORT from "
            "elsewhere; default: one made here."
        ),
    ] = None
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each model; default: shares the cores.")
    ] = None
    decoders: Annotated[
        int | None, typer.Option(min=1, help="Images decoded at once; default: as cores allow.")
    ] = None
    kind: Annotated[
        str | None,
        typer.Option(help="folder, tar, parquet, hf or csv, where the name does not tell."),
    ] = None
    image_column: Annotated[
        str | None, typer.Option(help="The column of images or their paths.")
    ] = None
    id_column: Annotated[
        str | None, typer.Option(help="The column of ids; default: file and row.")
    ] = None
    root: Annotated[
        str | None,
        typer.Option(help="Folder that paths in a table must lie in; default: the table's."),
    ] = None
    storage_option: Annotated[
        list[str] | None,
        typer.Option(help="What fsspec takes for a URL, as anon=true; never written down."),
    ] = None
    loading: shared.ModelOptions = field(default_factory=shared.ModelOptions)
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False


@dataclass(frozen=True)
class ReportOptions:
    """The options of `gradtoken batch report`."""

    folder: Annotated[str, typer.Argument(help="The results of gradtoken batch.")]
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.md and report.png; default: FOLDER.")
    ] = None
    classes: Annotated[int, typer.Option(min=1, help="Classes drawn, the most frequent.")] = 12
    examples: Annotated[int, typer.Option(min=0, help="Border-driven predictions shown.")] = 12
    storage_option: Annotated[
        list[str] | None, typer.Option(help="What fsspec takes for a URL, as anon=true.")
    ] = None


def run(options: RunOptions) -> None:
    """Explain every image of a data set into Parquet files: a row for each image and target.

    Each file is written whole. After an interruption of any kind, the same command with --resume
    makes what is missing, to the same bytes. An image that cannot be explained is a row with its
    error; the exit code is then 1.
    """
    from gradtoken.batch import running
    from gradtoken.batch.sources.listing import Source
    from gradtoken.batch.sources.tables import Columns

    storage = shared.parse_options(options.storage_option)
    columns = Columns(options.image_column, options.id_column, None, options.root)
    job = _job(options)
    with _Bar(hidden=options.quiet or options.json) as bar:
        summary = running.run(
            Source(options.source, options.kind, columns, storage),
            options.out,
            job,
            engine=options.engine,
            resume=options.resume,
            shard_size=options.shard_size,
            max_errors=options.max_errors,
            threads=options.threads,
            workers=options.workers,
            num_gpus=options.num_gpus,
            address=options.address,
            decoders=options.decoders,
            out_options=storage,
            progress=bar.progress,
        )
    _print(summary, options)
    if summary.errors:
        complain(
            f"{summary.errors} of {summary.images} images could not be explained; "
            "gradtoken batch report names some, and the column error says why."
        )
        raise typer.Exit(1)


def report(options: ReportOptions) -> None:
    """Summarise maps to find shortcuts: relevance outside the centre, mean maps, border cases."""
    from gradtoken.batch.results import reporting

    paths = reporting.report(
        options.folder,
        options.out,
        classes=options.classes,
        examples=options.examples,
        options=shared.parse_options(options.storage_option),
    )
    console.print("written: " + escape(", ".join(map(str, paths))), soft_wrap=True)


def _job(options: RunOptions) -> Job:
    from gradtoken.batch.job import Job

    loading = options.loading
    return Job(
        model=options.model,
        checkpoint=str(loading.checkpoint) if loading.checkpoint else None,
        device=loading.device,
        dtype=loading.dtype,
        pretrained=not loading.random_weights,
        image_size=shared.parse_size(loading.image_size),
        activation=loading.activation,
        method=options.method,
        options=shared.parse_options(options.option),
        targets=_targets(options.targets, options.above, options.finer),
        batch_size=options.batch_size,
    )


def _targets(targets: str | None, above: float | None, finer: str | None) -> TargetSpec:
    """The targets of --targets or --above, with --finer.

    Raises:
        TargetError: if both are given, or one that is not understood.
    """
    from gradtoken.batch.target_spec import TargetSpec
    from gradtoken.targets import parse_finer

    if above is not None and targets is not None:
        raise TargetError("--targets and --above both choose the classes; give one.")
    if above is None:
        spec = TargetSpec.parse("top:1" if targets is None else targets)
    else:
        spec = TargetSpec.likely(above)
    return spec if finer is None else replace(spec, finer=parse_finer(finer))


def _print(summary: Summary, options: RunOptions) -> None:
    if options.json:
        typer.echo(jsons.dumps(summary.to_dict()))
    elif not options.quiet:
        rate = (summary.images - summary.before) / max(summary.seconds, 1e-9)
        shards = "1 shard" if summary.shards == 1 else f"{summary.shards:,} shards"
        console.print(
            f"{summary.images:,} images, {summary.rows:,} rows in {shards} "
            f"({summary.resumed:,} from before), {rate:.1f} images/s: {escape(summary.out)}",
            soft_wrap=True,
            highlight=False,
        )


class _Bar:
    """The progress bar of a run, on standard error where that is a terminal."""

    def __init__(self, *, hidden: bool) -> None:
        from gradtoken.batch import job

        self._bar = Progress(
            TextColumn("explaining"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[errors]} errors"),
            console=problems,
            disable=hidden or not problems.is_terminal,
        )
        self._task = self._bar.add_task("", errors=0)
        self._errors = 0
        self.progress = job.Progress(self._planned, self._advanced)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def _planned(self, images: int, done: int) -> None:
        self._bar.update(self._task, total=images, completed=done)

    def _advanced(self, images: int, errors: int) -> None:
        self._errors += errors
        self._bar.update(self._task, advance=images, errors=self._errors)


group = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
group.command("run", epilog=EXAMPLES)(as_command(run))
group.command("report")(as_command(report))
