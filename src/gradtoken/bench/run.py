"""A run: methods by metrics by pictures, kept as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gradtoken.attribution import Method
from gradtoken.bench.cases import Case, cases
from gradtoken.bench.scores import CHANGED, GROUPS, SLOW, Maps
from gradtoken.bench.store import Record, Store
from gradtoken.datasets.sample import Sample
from gradtoken.errors import MethodError
from gradtoken.models.model import Model


@dataclass
class Outcome:
    """What a run did.

    Args:
        pictures: ids of the pictures measured, in order.
        refused: methods that cannot serve the model, and why.
    """

    pictures: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


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
    """Measure methods on the first `limit` pictures that count; those in the store are not redone.

    Args:
        methods: by the names they get in the records.
        groups: names of `GROUPS`.
        slow_limit: on how many of the pictures slow groups and slow methods are measured.
        whole: see `cases`.
        progress: called with the number of pictures done.

    Raises:
        MethodError: if no method can serve the model.
    """
    outcome = Outcome()
    chosen = list(groups)
    for name, case in cases(model, samples, whole=whole, skip=store.done):
        if case is not None:
            slow = len(outcome.pictures) < slow_limit
            store.add(name, _records(case, methods, chosen, slow, outcome.refused))
        outcome.pictures.append(name)
        progress(len(outcome.pictures))
        if len(outcome.pictures) == limit:
            break
    return outcome


def _records(
    case: Case,
    methods: Mapping[str, Method],
    groups: list[str],
    slow: bool,
    refused: dict[str, str],
) -> list[Record]:
    records = []
    for name, method in methods.items():
        if name in refused or (method.slow and not slow):
            continue
        try:
            maps = Maps.made(case, method)
        except MethodError as error:
            refused[name] = str(error)
            if len(refused) == len(methods):
                raise MethodError(
                    f"none of the methods can serve {case.trace.model.spec}: {error}"
                ) from None
            continue
        for group in groups:
            if group in SLOW and (not slow or (method.slow and group == CHANGED)):
                continue
            for metric, values in GROUPS[group](maps).items():
                records += [
                    Record(case.sample.id, thing, name, metric, value)
                    for thing, value in values.items()
                ]
    return records
