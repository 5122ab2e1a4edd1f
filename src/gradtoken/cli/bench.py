"""`gradtoken bench`: methods side by side, by the metrics of the field, on a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from gradtoken import atomic
from gradtoken.cli import options as shared
from gradtoken.cli.bench_choices import parse_groups, parse_methods
from gradtoken.cli.bench_output import REFERENCE, document, print_results
from gradtoken.cli.class_map import ClassMapOptions
from gradtoken.cli.console import complain
from gradtoken.cli.output import Output
from gradtoken.cli.signature import Without
from gradtoken.cli.tuned_models import TunedOptions
from gradtoken.errors import DatasetError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradtoken.attribution import Method
    from gradtoken.bench.class_map import ClassMap
    from gradtoken.bench.differences import Difference
    from gradtoken.bench.run import Outcome
    from gradtoken.datasets.sample import Samples
    from gradtoken.models import Model

EXAMPLES = """
Examples:

- `gradtoken bench --model demo --data scenes --limit 200 --out results`
- `gradtoken bench -m timm/vit_base_patch16_224 --data imagenet-seg:gtsegs_ijcv.mat`
- `gradtoken bench -m timm/vit_base_patch16_224 --data folder:val --methods gradtoken,gae,rollout`
- `gradtoken bench -m timm/deit_tiny_patch16_224 --data coco:val2017,instances.json --class-map
  coco_to_imagenet.json`
- `gradtoken bench --methods gradtoken,gradtoken:preset=sharp,gradtoken:layers=[-1] --limit 50`
"""
_EXAMPLES = 3
"""Images on the sheet of examples."""


@dataclass(frozen=True)
class BenchOptions:
    """The options of `gradtoken bench`."""

    model: shared.ModelSpec = "demo"
    data: Annotated[
        str,
        typer.Option(
            help="scenes[:SEED], voc:DIR, coco:DIR, coco:IMAGES,JSON, imagenet-seg:FILE or "
            "folder:DIR."
        ),
    ] = "scenes"
    methods: Annotated[
        str,
        typer.Option(
            help="all, or names of `gradtoken methods` with commas between; a name can have "
            "options, as in gradtoken:preset=sharp:beta=0.7. The random map is always measured too."
        ),
    ] = "all"
    metrics: Annotated[
        str,
        typer.Option(
            help="all, or some of localization, coupling, top1-random, segmentation, contrast, "
            "perturbation, insertion-deletion, sanity, input-shift, relevance, saco, "
            "single-deletion, idsds, road, f-fidelity, max-sensitivity, grid-pointing with commas "
            "between."
        ),
    ] = "all"
    limit: Annotated[int, typer.Option(min=1, help="Images to measure on.")] = 200
    slow_limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Images for what takes many times as long: contrast, sanity, input-shift, road, "
            "f-fidelity and max-sensitivity, and methods such as RISE; and mosaics of "
            "grid-pointing. Default: one in twenty.",
        ),
    ] = None
    every_image: Annotated[
        bool,
        typer.Option(
            "--every-image",
            "--every-picture",
            help="Also images whose classes the model gets wrong.",
        ),
    ] = False
    template: Annotated[
        str | None,
        typer.Option(
            help="The prompts of a model such as CLIP, {} for each class name of the data set. "
            "Default: a photo of a {}."
        ),
    ] = None
    mapping: ClassMapOptions = field(default_factory=ClassMapOptions)
    tuning: TunedOptions = field(default_factory=TunedOptions)
    out: Annotated[Path, typer.Option(help="Folder for records, tables and figures.")] = Path(
        "gradtoken-bench"
    )
    loading: Annotated[shared.ModelOptions, Without("random_weights")] = field(
        default_factory=shared.ModelOptions
    )
    output: Output = field(default_factory=Output)

    @property
    def slow_images(self) -> int:
        """On how many images slow metrics and slow methods are measured."""
        return max(1, self.limit // 20) if self.slow_limit is None else self.slow_limit


@dataclass(frozen=True)
class _Inputs:
    """What the options name, loaded."""

    model: Model
    methods: Mapping[str, Method]
    groups: Mapping[str, Model | None]
    samples: Samples
    class_map: ClassMap | None


def run(options: BenchOptions) -> None:
    """Measure attribution methods side by side and write tables and figures.

    Started again with the same settings it goes on where it was. Every figure comes with its number
    of instances and a 95% bootstrap interval over images, and paired differences to GradToken with
    tests that are corrected for the number of comparisons.
    """
    from gradtoken.bench.differences import differences

    inputs = _load(options)
    settings = _settings(options, inputs)
    outcome = _measure(options, inputs, settings)
    for reason in outcome.unsupported.values():
        complain(f"left out: {reason}")
    for name, failure in outcome.failed.items():
        complain(f"{name} failed on {failure.count} of {failure.of} images: {failure.reason}")
    if not outcome.images:
        raise _nothing_measured(options, outcome)
    title = f"{options.model} on {options.data}, {len(outcome.images)} images"
    compared = differences(outcome.records, REFERENCE)
    paths = _write(options, inputs, outcome, title, compared)
    print_results(options.output, outcome, title, paths, compared)
    options.output.document(document(settings, outcome, paths, compared))
    if outcome.failed:
        raise typer.Exit(1)


def _load(options: BenchOptions) -> _Inputs:
    from gradtoken.datasets import open_samples

    methods = parse_methods(options.methods)
    groups = parse_groups(options.metrics)
    if options.every_image and options.mapping.class_map is not None:
        raise DatasetError(
            "--every-image asks about every class and --class-map about those the model sees; "
            "give one of them, or --class-map with --min-probability 0."
        )
    options.mapping.check()
    samples = open_samples(options.data)
    model = _classifier(options.loading.load(options.model), samples, options.template)
    size = shared.parse_size(options.loading.image_size)
    asked = options.tuning.load(model, groups, size, every=options.metrics == "all")
    return _Inputs(model, methods, asked, samples, options.mapping.read(model))


def _classifier(model: Model, samples: Samples, template: str | None) -> Model:
    """The model; a text model with the data set's class names as prompts."""
    from gradtoken.models.zero_shot import TEMPLATE, zero_shot

    if model.prompts is None and template is None:
        return model
    if model.prompts is not None and not samples.vocabulary:
        raise DatasetError(
            f"{model.spec} is asked about class names, and {samples.kind} data sets have no list "
            "of them; use scenes, VOC or COCO."
        )
    return zero_shot(model, samples.vocabulary, TEMPLATE if template is None else template)


def _settings(options: BenchOptions, inputs: _Inputs) -> dict[str, Any]:
    """What the records depend on; a run resumes only with the same."""
    from gradtoken.bench.identity import identity

    return {
        **identity(inputs.model, inputs.methods, inputs.groups),
        "image_size": options.loading.image_size,
        "data": options.data,
        "slow_limit": options.slow_images,
        "every_picture": options.every_image,
        "class_map": None if inputs.class_map is None else inputs.class_map.to_dict(),
    }


def _measure(options: BenchOptions, inputs: _Inputs, settings: Mapping[str, Any]) -> Outcome:
    """Measure what is not in the store yet, with a progress bar."""
    from gradtoken.bench.run import run as measure
    from gradtoken.bench.store import Store

    store = Store(options.out, settings)
    bar = options.output.progress(
        TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )
    with bar:
        task = bar.add_task("", total=min(options.limit, len(inputs.samples)))
        return measure(
            inputs.model,
            inputs.methods,
            inputs.samples,
            inputs.groups,
            store,
            limit=options.limit,
            slow_limit=options.slow_images,
            whole=not options.every_image,
            class_map=inputs.class_map,
            progress=lambda done: bar.update(task, completed=done),
        )


def _write(
    options: BenchOptions,
    inputs: _Inputs,
    outcome: Outcome,
    title: str,
    compared: Sequence[Difference],
) -> list[Path]:
    """Write the tables, the plots and the sheet of examples."""
    from gradtoken.bench import agreement
    from gradtoken.bench.cases import cases
    from gradtoken.bench.examples import examples
    from gradtoken.bench.plots import bars, perturbation_curves
    from gradtoken.bench.summary import rows
    from gradtoken.bench.tables import write

    records = outcome.records
    paths = write(options.out, records, REFERENCE, title, compared)
    paths += agreement.write(options.out, rows(records))
    measured = {name: m for name, m in inputs.methods.items() if name in records.methods()}
    every = cases(
        inputs.model,
        inputs.samples,
        whole=not options.every_image,
        class_map=inputs.class_map,
    )
    first = [case for _, case in islice(every, _EXAMPLES) if case is not None]
    plots = {
        "curves": perturbation_curves(records),
        "bars": bars(rows(records)),
        "sheet": examples(first, measured, title),
    }
    saved = [_save(plot, options.out / f"{name}.png") for name, plot in plots.items() if plot]
    return paths + saved


def _nothing_measured(options: BenchOptions, outcome: Outcome) -> DatasetError:
    if options.mapping.class_map is None:
        return DatasetError(
            f"the model recognised none of the images of {options.data}; pass --every-image."
        )
    reasons = outcome.left_out.images
    why = "; ".join(f"{count} images: {reason}" for reason, count in reasons.items())
    return DatasetError(
        f"no image of {options.data} is measured with this class map ({why}); give another map, or "
        "other --min-probability, --min-area and --max-area."
    )


def _save(figure: Figure, path: Path) -> Path:
    with atomic.writing(path) as part:
        figure.savefig(part, dpi=150)
    return path
