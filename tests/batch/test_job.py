"""Jobs and summaries of runs."""

from __future__ import annotations

import pytest

from gradtoken.batch import Job, Summary, TargetSpec
from gradtoken.batch.job import fingerprint

SUMMARY = Summary("maps", images=3, rows=5, errors=1, shards=1, resumed=0, before=0, seconds=1.5)


def test_summary_pictures_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match="use Summary.images"):
        assert SUMMARY.pictures == 3


def test_summary_to_dict_has_all_fields() -> None:
    assert list(SUMMARY.to_dict().items()) == [
        ("out", "maps"),
        ("images", 3),
        ("rows", 5),
        ("errors", 1),
        ("shards", 1),
        ("resumed", 0),
        ("before", 0),
        ("seconds", 1.5),
    ]


def test_job_settings_are_plain_data() -> None:
    assert Job(targets=TargetSpec(top_k=3), threads=2).settings() == {
        "targets": {"top_k": 3},
        "batch_size": 16,
        "threads": 2,
        "max_pixels": Job().max_pixels,
    }


def test_fingerprint_ignores_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
