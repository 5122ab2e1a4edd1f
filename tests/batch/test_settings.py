"""Settings that are checked before a run."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import get_type_hints

import pytest

from gradtoken.batch import TargetSpec, run
from gradtoken.batch.settings import RunOptions, RunSettings
from gradtoken.errors import GradTokenError, TargetError
from tests.batch.conftest import JOB, start


@pytest.mark.parametrize("name", ["workers", "threads", "decoders", "shard_size"])
def test_check_rejects_counts_of_zero(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(GradTokenError, match=f"{name} is 0; it must be 1 or more"):
        start(folder, tmp_path / "out", **{name: 0})
    with pytest.raises(TargetError, match="top_k is 0; give a number of classes"):
        start(folder, tmp_path / "out", job=replace(JOB, targets=TargetSpec(top_k=0)))


def test_check_rejects_options_of_another_engine(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GradTokenError, match="--engine 'spark' is unknown"):
        start(folder, tmp_path / "a", engine="spark")
    with pytest.raises(GradTokenError, match="local engine has one model"):
        start(folder, tmp_path / "a", workers=2)
    with pytest.raises(GradTokenError, match="local engine has one model"):
        start(folder, tmp_path / "a", num_gpus=1, job=replace(JOB, device="cpu"))


def test_run_options_are_fields_of_the_settings() -> None:
    types = get_type_hints(RunSettings)
    optional = {field.name: types[field.name] for field in fields(RunSettings)[3:]}
    assert get_type_hints(RunOptions) == optional
    described = re.findall(r"^ +(\w+) \(.+\): ", inspect.getdoc(run) or "", flags=re.M)
    assert described == list(optional)


def test_run_rejects_unknown_options(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'shards'"):
        start(folder, tmp_path / "out", shards=3)
