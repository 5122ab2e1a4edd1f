"""The benchmark of many clients, on few of them, and that it notices what it is there for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from benchmarks.app_clients import Found, Usage, judge, people, watched

from gradtoken.models import Model
from tests.app.conftest import Served

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


def test_nobody_gets_an_error_or_another_ones_map(
    served: Served, demo: Model, tmp_path: Path
) -> None:
    found = Found()
    everybody = people(served.url, 8, tmp_path, found, demo)
    seen = watched(everybody, os.getpid(), 4)
    outcome = judge(found, seen, 4)
    assert outcome["errors"] == 0, found.errors
    assert outcome["wrong_maps"] == 0, found.wrong
    assert outcome["requests"] >= 16
    assert all(one.bytes > 0 and one.threads > 0 and one.files > 0 for one in seen)


def test_a_map_of_another_picture_is_noticed(served: Served, demo: Model, tmp_path: Path) -> None:
    found = Found()
    (person,) = people(served.url, 1, tmp_path, found, demo)
    (first, maps), (second, _) = person._pictures
    person._pictures = [(second, maps), (second, maps)]
    person.live(time.monotonic() + 0.5, 0)
    assert not found.errors
    assert found.wrong
    assert first != second


def test_an_error_and_growth_are_noticed(served: Served, demo: Model, tmp_path: Path) -> None:
    found = Found()
    (person,) = people(served.url, 1, tmp_path, found, demo)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    person._pictures = [(tmp_path / "bad.png", np.zeros((1, 1, 1)))]
    person.live(time.monotonic() + 5, 0)
    assert "not a picture" in found.errors[0]
    seen = [Usage(float(at), int(1e9 + 1e7 * at), 10, 10) for at in range(61)]
    told = judge(found, seen, 60)["not_as_it_has_to_be"]
    assert told[0].startswith("1 errors")
    assert told[1].startswith("memory grew from 1150 to 1550")
    flat = [Usage(one.at, int(1e9), 10, 10) for one in seen]
    assert judge(Found(), flat, 60)["not_as_it_has_to_be"] == []
