"""A run: methods by metrics by images, kept as it goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gradtoken.attribution import Method
from gradtoken.bench.cases import Case, cases
from gradtoken.bench.identity import identity, run_sha256, sample_sha256
from gradtoken.bench.left_out import LeftOut
from gradtoken.bench.records import FAILED, SKIPPED, Failure, Record, Records
from gradtoken.bench.scores import CHANGED, GROUPS, SLOW, Maps
from gradtoken.bench.store import Stamp, Store
from gradtoken.datasets.sample import Sample
from gradtoken.errors import MethodError, ModelError, TargetError
from gradtoken.models.model import Model

_TRIED = 10
"""Images on which every method may fail before a run is given up."""


@dataclass
class Outcome:
    """What a run did.

    Args:
        pictures: ids of the images measured, in order.
        records: of these.
        refused: methods that gave no value for any image, and why.
        failed: methods that failed on some images.
        left_out: images that were not measured, and names that were not looked up, and why.
        objects: how many objects of the images measured were left out, by reason.
    """

    pictures: list[str] = field(default_factory=list)
    records: Records = field(default_factory=lambda: Records.of([]))
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)
    objects: dict[str, int] = field(default_factory=dict)


def run(
    model: Model,
    methods: Mapping[str, Method],
    samples: Iterable[Sample],
    groups: Iterable[str],
    store: Store,
    *,
    limit: int,
    slow_limit: int,
    whole: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Measure methods on the first `limit` images that count; those in the store are not redone.

    Where a method fails on an image, the record says why, and the others go on. What is written
    does not depend on whether, or where, the run was interrupted.

    Args:
        model: to be explained.
        methods: by the names they get in the records.
        samples: a data set.
        groups: names of `GROUPS`.
        store: where the records are kept.
        limit: how many images are measured.
        slow_limit: on how many of the images slow groups and slow methods are measured.
        whole: see `cases`.
        progress: called with the number of images done.

    Raises:
        MethodError: if no method gives a value for any of the first images, or nothing that is
            asked for can be measured on the images.
        OutputError: if the store holds records of another model, of other methods or metrics, or
            of another image.
    """
    outcome = Outcome()
    stamps = _Stamps(model, methods, list(groups), outcome, slow_limit)
    found = cases(
        model,
        samples,
        whole=whole,
        skip=lambda sample: store.done(sample.id, stamps.of(sample)),
        left_out=outcome.left_out,
    )
    for name, case in found:
        if case is not None:
            records = [*_skipped(case), *_records(case, methods, stamps.groups, stamps.slow)]
            store.add(name, records, stamps.of(case.sample))
        outcome.pictures.append(name)
        progress(len(outcome.pictures))
        if len(outcome.pictures) == _TRIED:
            _check_served(store.read(outcome.pictures), model)
        if len(outcome.pictures) == limit:
            break
    _conclude(store, outcome, model)
    return outcome


class _Stamps:
    """What the records of the next image are of."""

    def __init__(
        self,
        model: Model,
        methods: Mapping[str, Method],
        groups: list[str],
        outcome: Outcome,
        slow_limit: int,
    ) -> None:
        self.groups = groups
        self._about = identity(model, methods, groups)
        self._runs = {slow: run_sha256(self._about, slow=slow) for slow in (False, True)}
        self._outcome, self._slow_limit = outcome, slow_limit

    @property
    def slow(self) -> bool:
        """Whether slow groups and methods are measured on the next image."""
        return len(self._outcome.pictures) < self._slow_limit

    def of(self, sample: Sample) -> Stamp:
        return Stamp(self._runs[self.slow], sample_sha256(sample))


def _records(
    case: Case, methods: Mapping[str, Method], groups: Sequence[str], slow: bool
) -> Iterator[Record]:
    """Every method's values for an image, or why there are none."""
    for name, method in methods.items():
        if method.slow and not slow:
            continue
        try:
            maps = Maps.made(case, method)
        except _FAILURES as error:
            yield _failure(case, name, "maps", error)
            continue
        for group in groups:
            if group in SLOW and (not slow or (method.slow and group == CHANGED)):
                continue
            try:
                figures = GROUPS[group](maps)
            except _FAILURES as error:
                yield _failure(case, name, group, error)
                continue
            for metric, values in figures.items():
                for thing, value in values.items():
                    yield Record(case.sample.id, thing, name, metric, value)


_FAILURES = (MethodError, ModelError, TargetError)


def _failure(case: Case, method: str, what: str, error: Exception) -> Record:
    return Record(case.sample.id, "", method, f"{FAILED}{what}", math.nan, str(error))


def _skipped(case: Case) -> Iterator[Record]:
    for thing, reason in case.skipped:
        yield Record(case.sample.id, thing, "", SKIPPED, math.nan, reason)


def _check_served(records: Records, model: Model) -> None:
    """Give up where every method failed on every image so far.

    Raises:
        MethodError: with the first reason.
    """
    failures = records.failures()
    if failures and not records.methods():
        reason = next(iter(failures.values())).reason
        raise MethodError(f"none of the methods can serve {model.spec}: {reason}")


def _conclude(store: Store, outcome: Outcome, model: Model) -> None:
    """What was measured, what failed and what was left out, in all."""
    outcome.records = records = store.read(outcome.pictures)
    _check_served(records, model)
    if outcome.pictures and not records.methods():
        raise MethodError(
            "nothing could be measured: these metrics need masks or several classes, which the "
            "pictures do not have, or slow_limit is 0 and all that was chosen is slow."
        )
    for method, failure in records.failures().items():
        if failure.whole == failure.of:
            outcome.refused[method] = failure.reason
        else:
            outcome.failed[method] = failure
    outcome.objects = records.skipped()
