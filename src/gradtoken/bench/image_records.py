"""The records of one image: every method by every group of metrics."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

from gradtoken.attribution import Method
from gradtoken.bench.cases import Case
from gradtoken.bench.maps import Maps
from gradtoken.bench.records import FAILED, SKIPPED, Record
from gradtoken.bench.scores import GROUPS, RERUNS_METHOD, SLOW
from gradtoken.bench.swept import Swept
from gradtoken.errors import FAILURES


def image_records(
    case: Case, methods: Mapping[str, Method], groups: Sequence[str], slow: bool
) -> Iterator[Record]:
    """The objects of an image that are left out, and every method's values or why it has none.

    Args:
        case: the image.
        methods: by the names they get in the records.
        groups: names of `GROUPS`.
        slow: whether slow groups and slow methods are measured.
    """
    for thing, reason in case.skipped:
        yield Record(case.sample.id, thing, "", SKIPPED, math.nan, reason)
    if not groups:
        return
    results = {
        name: _maps_or_error(case, method)
        for name, method in methods.items()
        if slow or not method.slow
    }
    for maps in results.values():
        if isinstance(maps, Maps):
            _request_variants(maps, groups)
    for name, maps in results.items():
        if not isinstance(maps, Maps):
            yield _failure(case, name, "maps", maps)
            continue
        for group in groups:
            if group in SLOW and (not slow or (maps.method.slow and group in RERUNS_METHOD)):
                continue
            try:
                metrics = GROUPS[group](maps)
            except FAILURES as error:
                yield _failure(case, name, group, error)
                continue
            for metric, values in metrics.items():
                for thing, value in values.items():
                    yield Record(case.sample.id, thing, name, metric, value)


def _maps_or_error(case: Case, method: Method) -> Maps | Exception:
    try:
        return Maps.compute(case, method)
    except FAILURES as error:
        return error


def _request_variants(maps: Maps, groups: Sequence[str]) -> None:
    """Put the variants that the groups look at among those that run next.

    What fails here fails again, and is recorded, where the group is measured.
    """
    for name in groups:
        group = GROUPS[name]
        if isinstance(group, Swept):
            with contextlib.suppress(*FAILURES):
                group.request(maps)


def _failure(case: Case, method: str, what: str, error: Exception) -> Record:
    return Record(case.sample.id, "", method, f"{FAILED}{what}", math.nan, str(error))
