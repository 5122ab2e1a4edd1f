"""Every fuzz target, on a bounded number of inputs that are the same each time.

`tools/fuzz/run.py` hands in as many as wanted; docs/security.md has what ten thousand each gave.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from random import Random

import pytest
from fuzz import run as runner
from fuzz import target as targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.waiting import PATIENCE

_ROOT = Path(__file__).parents[2]
_INPUTS = {"command_line": 60, "checkpoints": 120, "options": 200, "manifests": 150}
_INPUTS |= {"app_requests": 80, "batch_results": 150}


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.names())
def test_fuzz_targets_raise_only_own_errors(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = targets.find(name)
    warm = targets.check(target, Random(f"{name}:0:0"), tmp_path_factory.mktemp(name))
    assert warm.kind != "AssertionError", warm.detail

    @settings(
        max_examples=_INPUTS.get(name, 300),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def hand_in(rng: Random) -> None:
        found = targets.check(target, rng, tmp_path_factory.mktemp(name))
        assert not found.failed, f"{found.kind}: {found.detail}"

    hand_in()


@pytest.mark.slow
def test_fuzz_runner_notices_every_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{_ROOT}:{_ROOT / 'src'}")
    found = runner.run("tests.hardening.misbehaving", 0, 0, 9, PATIENCE)
    assert (found["inputs"], found["taken"], found["refused"]) == (9, 1, 1)
    kinds = {failure["index"]: failure["kind"] for failure in found["failures"]}
    assert kinds == {
        2: "ValueError",
        3: "died (-6)",
        4: "hang",
        5: "too much memory",
        6: "half-written file",
        7: "not one sentence",
        8: "too slow",
    }
    assert found["slowest"]["index"] == 8
    assert found["largest"]["index"] == 5
    assert 80 <= found["largest"]["megabytes"] < 200


@pytest.mark.slow
def test_fuzz_runner_records_and_shows_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        return runner.main()

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    record = tmp_path / "runs" / "fuzz.json"
    for start in ("0", "5"):
        slices = ("--inputs", "5", "--start", start, "--record", str(record))
        assert main("--target", "voc", *slices) == 0
    held = json.loads(record.read_text())
    assert [(part["start"], part["inputs"]) for part in held["voc"]] == [(0, 5), (5, 5)]
    capsys.readouterr()
    assert main("--table", str(record)) == 0
    assert "| voc | 10 |" in capsys.readouterr().out
