"""A run measures methods by metrics by images, and keeps the records of each image on disk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from gradtoken.attribution import Method
from gradtoken.attribution.built_in import FLOOR
from gradtoken.bench.cases import cases, recognised, scene_case
from gradtoken.bench.class_map import ClassMap
from gradtoken.bench.exclusions import Exclusions
from gradtoken.bench.identity import identity, run_sha256, sample_sha256
from gradtoken.bench.image_records import image_records
from gradtoken.bench.in_domain import Groups, tuned_of
from gradtoken.bench.maps import Maps
from gradtoken.bench.mosaics import GRID_POINTING, measure_mosaics
from gradtoken.bench.records import Failure, Records
from gradtoken.bench.scores import by_object, present_coupling
from gradtoken.bench.store import Stamp, Store
from gradtoken.datasets.sample import Sample
from gradtoken.datasets.scenes.scenes import Scenes
from gradtoken.deprecation import renamed_parameters
from gradtoken.errors import MethodError, ModelError
from gradtoken.models.model import Model

METRICS = ("pointing", "token_ap", "share", "energy", "coupling")
"""Metrics of `measure`."""

_TRIAL = 10
"""Images on which every method may fail before a run is given up."""


@dataclass
class Outcome:
    """What a run did.

    Args:
        images: ids of the images measured, in order.
        records: of these.
        unsupported: methods that gave no value for any image, and why.
        failed: methods that failed on some images.
        left_out: images that were not measured, and names that were not matched, and why.
        objects: how many objects of the images measured were left out, by reason.
    """

    images: list[str] = field(default_factory=list)
    records: Records = field(default_factory=lambda: Records.of([]))
    unsupported: dict[str, str] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)
    left_out: Exclusions = field(default_factory=Exclusions)
    objects: dict[str, int] = field(default_factory=dict)

    @property
    def pictures(self) -> list[str]:
        """Deprecated: use `images`."""
        _deprecated("pictures", "images")
        return self.images

    @property
    def refused(self) -> dict[str, str]:
        """Deprecated: use `unsupported`."""
        _deprecated("refused", "unsupported")
        return self.unsupported


def _deprecated(old: str, new: str) -> None:
    warnings.warn(
        f"Outcome.{old} is deprecated; use Outcome.{new} instead.",
        DeprecationWarning,
        stacklevel=3,
    )


def run(
    model: Model,
    methods: Mapping[str, Method],
    samples: Iterable[Sample],
    groups: Groups,
    store: Store,
    *,
    limit: int,
    slow_limit: int,
    whole: bool = True,
    class_map: ClassMap | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Measure methods on the first `limit` images that count; those in the store are not redone.

    Where a method fails on an image, the record says why, and the run continues. What is written
    does not depend on whether, or where, the run was interrupted.

    Args:
        model: to be explained.
        methods: by the names they get in the records.
        samples: a data set.
        groups: names of `GROUPS`, or "grid-pointing"; a mapping also gives the fine-tuned model
            that a group asks (`NEEDS_TUNED`).
        store: where the records are kept.
        limit: how many images are measured.
        slow_limit: on how many of the images slow groups (`SLOW`) and methods are measured, and
            how many mosaics are for grid pointing.
        whole: see `cases`.
        class_map: see `cases`.
        progress: called with the number of images done.

    Raises:
        MethodError: if no method gives a value for any of the first images, or none of the groups
            can be measured on the images.
        OutputError: if the store holds records of another model, of other methods or metrics, or
            of another image.
    """
    outcome, names = Outcome(), list(groups)
    per_image = [name for name in names if name != GRID_POINTING]
    stamps = _Stamps(identity(model, methods, groups), class_map, outcome, slow_limit)
    selected = cases(
        model,
        samples,
        whole=whole,
        class_map=class_map,
        skip=lambda sample: store.done(sample.id, stamps.of(sample)),
        exclusions=outcome.left_out,
    )
    for name, case in selected:
        if case is not None:
            asked = replace(case, tuned=tuned_of(groups))
            records = image_records(asked, methods, per_image, stamps.slow)
            store.add(name, records, stamps.of(case.sample))
        outcome.images.append(name)
        progress(len(outcome.images))
        if len(outcome.images) == _TRIAL:
            _check_supported(store.read(outcome.images), model)
        if len(outcome.images) == limit:
            break
    mosaics: list[str] = []
    if GRID_POINTING in names:
        found = cases(model, samples, whole=whole, class_map=class_map)
        counted = islice((case for _, case in found if case is not None), len(outcome.images))
        mosaics = measure_mosaics(model, methods, counted, store, stamps.run(slow=True), slow_limit)
    _summarise(store, outcome, mosaics, model)
    return outcome


def measure(
    model: Model,
    methods: Mapping[str, Method],
    scenes: Scenes,
    count: int,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[dict[str, Any]], int]:
    """The `METRICS` of every method on the first `count` recognised scenes.

    Args:
        model: with the scenes' classes.
        methods: by the names they get in the records.
        scenes: the bundled scenes.
        count: how many recognised scenes are measured.
        progress: called with the number of scenes done so far.

    Returns:
        A record per scene, object and method (scene, object, method and the `METRICS`; coupling,
        which belongs to a scene, is repeated for its objects), and how many scenes were looked at.
        Metrics of an object outside of the model's crop are NaN.

    Raises:
        ModelError: the model has other classes.
    """
    if tuple(model.labels) != scenes.classes:
        raise ModelError(
            f"{model.spec} was not trained on the bundled scenes (its classes are others); measure "
            "a model that names them, such as demo."
        )
    records: list[dict[str, Any]] = []
    looked_at = 0
    for done, (index, scene) in enumerate(recognised(model, scenes, 1 << 40), start=1):
        case = scene_case(model, index, scene)
        for name, method in methods.items():
            records += _scene_records(index, name, Maps.of_targets(case, method))
        progress(done)
        if done == count:
            looked_at = index + 1
            break
    return records, looked_at


@renamed_parameters(figure="metric")
def column(records: list[dict[str, Any]], method: str, metric: str) -> np.ndarray[Any, Any]:
    """One metric of one method over all instances, in the order of the records of `measure`."""
    return np.array([r[metric] for r in records if r["method"] == method], dtype=float)


def _scene_records(index: int, method: str, maps: Maps) -> list[dict[str, Any]]:
    names = maps.case.names
    coupling = present_coupling(maps) if len(names) > 1 else math.nan
    values = {**by_object(maps), "coupling": dict.fromkeys(names, coupling)}
    return [
        {
            "scene": index,
            "object": name,
            "method": method,
            **{metric: values[metric][name] for metric in METRICS},
        }
        for name in names
    ]


class _Stamps:
    """The stamp of the records of the next image."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        class_map: ClassMap | None,
        outcome: Outcome,
        slow_limit: int,
    ) -> None:
        self._runs = {
            slow: run_sha256(settings, slow=slow, class_map=class_map) for slow in (False, True)
        }
        self._outcome, self._slow_limit = outcome, slow_limit

    @property
    def slow(self) -> bool:
        """Whether slow groups and methods are measured on the next image."""
        return len(self._outcome.images) < self._slow_limit

    def run(self, *, slow: bool) -> str:
        """The fingerprint of the run."""
        return self._runs[slow]

    def of(self, sample: Sample) -> Stamp:
        return Stamp(self._runs[self.slow], sample_sha256(sample))


def _check_supported(records: Records, model: Model) -> None:
    """End a run in which every method but the floor failed on every image so far.

    Raises:
        MethodError: with the first reason.
    """
    failures = records.failures()
    if failures and not set(records.methods()) - {FLOOR}:
        reason = next(iter(failures.values())).reason
        raise MethodError(f"none of the methods can serve {model.spec}: {reason}")


def _summarise(store: Store, outcome: Outcome, mosaics: list[str], model: Model) -> None:
    """Fill in what was measured, what failed and what was left out."""
    outcome.records = records = store.read([*outcome.images, *mosaics])
    _check_supported(records, model)
    if outcome.images and not records.methods():
        raise MethodError(
            "nothing could be measured: these metrics need masks or several classes, which the "
            "images do not have, or slow_limit is 0 and everything chosen is slow."
        )
    for method, failure in records.failures().items():
        if failure.whole == failure.of:
            outcome.unsupported[method] = failure.reason
        else:
            outcome.failed[method] = failure
    outcome.objects = records.skipped()
