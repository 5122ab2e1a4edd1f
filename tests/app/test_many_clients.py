"""The benchmark of many clients, on few of them, and that it notices what it is there for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from benchmarks.app_clients.__main__ import judge, watched
from benchmarks.app_clients.people import BLOCKS, Found, Picture, people
from benchmarks.app_clients.usage import Usage, series

from gradtoken.models import Model
from tests.app.conftest import Served

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@pytest.mark.slow
def test_people_get_no_errors_and_their_own_maps(
    served: Served, demo: Model, tmp_path: Path
) -> None:
    found = Found()
    everybody = people(served.url, 8, tmp_path, found, demo)
    seen = watched(everybody, os.getpid(), 2)
    outcome = judge(found, seen, [], 2)
    assert outcome["errors"] == 0, found.errors
    assert outcome["wrong_maps"] == 0, found.wrong
    assert sum(outcome["requests"].values()) >= 3 * len(everybody)
    assert all(one.bytes > 0 and one.threads > 0 and one.files > 0 for one in seen)


def test_person_checks_every_action(served: Served, demo: Model, tmp_path: Path) -> None:
    found = Found()
    (person,) = people(served.url, 1, tmp_path, found, demo)
    mine, other = person._pictures
    offered = person._open(mine.path)
    person._ask(offered[:2])
    for blocks in BLOCKS:
        person._look(blocks, 0.3, 0.5)
        person._download(blocks)
    person._compare()
    assert found.wrong == []
    assert {what: len(times) for what, times in found.seconds.items()} == {
        "open": 1,
        "ask": 1,
        "look": 2,
        "download": 2,
        "compare": 1,
    }
    person._maps = other.maps
    person._ask(offered[:2])
    person._look(BLOCKS[1], 0, 0)
    person._download(BLOCKS[1])
    person._ticked = offered[:3]
    person._compare()
    assert [told.partition(":")[0] for told in found.wrong] == [
        "ask",
        "look",
        "download",
        "compare",
    ]


def test_person_reports_map_of_another_image(served: Served, demo: Model, tmp_path: Path) -> None:
    found = Found()
    (person,) = people(served.url, 1, tmp_path, found, demo)
    first, second = person._pictures
    person._pictures = [Picture(second.path, first.maps)]
    person.live(time.monotonic(), 0)
    assert not found.errors
    assert found.wrong


def test_person_reports_rejected_upload_and_judge_failures(
    served: Served, demo: Model, tmp_path: Path
) -> None:
    found = Found()
    (person,) = people(served.url, 1, tmp_path, found, demo)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    person._pictures = [Picture(tmp_path / "bad.png", {BLOCKS[0]: np.zeros((1, 1, 1))})]
    person.live(time.monotonic(), 0)
    assert "not a picture" in found.errors[0]
    seen = [Usage(float(at), int(1e9 + 1e7 * at), 20 + at, 30 + at) for at in range(61)]
    told = judge(found, seen, [tmp_path / "bad.png"], 60)["not_as_it_has_to_be"]
    assert told[:3] == [
        "megabytes grew from 1150 to 1550",
        "threads grew from 35 to 75",
        "files grew from 45 to 85",
    ]
    assert told[3].startswith("1 errors, the first being")
    assert told[4] == "1 uploads are left, the first being bad.png"
    flat = [Usage(one.at, int(1e9), 20, 30) for one in seen]
    assert judge(Found(), flat, [], 60)["not_as_it_has_to_be"] == []
    assert len(series(seen)) == 61
    assert len(series(seen * 10)) == 61
