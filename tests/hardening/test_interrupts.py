"""Ctrl-C at any moment leaves the model as it was, and no file half-written."""

from __future__ import annotations

import ast
import inspect
import json
import linecache
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gradtoken
from gradtoken.attribution import make_method, methods
from gradtoken.bench.run import run
from gradtoken.bench.store import Store
from gradtoken.datasets.sample import Sample
from gradtoken.explanation import saving
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit
from tests.hardening.state import files_in, state_of
from tests.waiting import PATIENCE, until

_HOME = str(Path(gradtoken.__file__).parent)
_SKIPPED = {"leave", "_put_back", "forget", "__enter__", "__exit__"}
"""Functions that put things back, which nobody can interrupt and have done too, and those that hand
over to them."""


class _Interrupt:
    """Raises KeyboardInterrupt at one of the lines of gradtoken that a piece of work runs."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.seen = at, 0
        self._entered: dict[int, set[int]] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(_HOME) or code.co_name in _SKIPPED:
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "return" and not frame.f_code.co_flags & inspect.CO_GENERATOR:
            self._entered.pop(id(frame), None)
            return self._line
        cleaning = frame.f_lineno in _cleanup_lines(frame.f_code.co_filename)
        if event == "line" and not cleaning and not self._between(frame):
            self.seen += 1
            if self.seen == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return self._line

    def _between(self, frame: FrameType) -> bool:
        """Whether tracers see the line but signals cannot fall there: a `with` met again on its way
        out to the context's exit, and a `try:`, which does nothing."""
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        entered = self._entered.setdefault(id(frame), set())
        again = line.startswith("with ") and frame.f_lineno in entered
        entered.add(frame.f_lineno)
        return again or line == "try:"


@cache
def _cleanup_lines(file: str) -> set[int]:
    """The lines in `finally`, which put things back as well."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(Path(file).read_text("utf-8"))):
        for part in node.finalbody if isinstance(node, ast.Try) else []:
            found |= set(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    return found


@contextmanager
def _traced(interrupt: _Interrupt) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        yield
    finally:
        sys.settrace(before)


def _at_random_lines(work: Callable[[], Any], count: int) -> Iterator[str]:
    """Do the work again and again, interrupted at another line each time, which is told."""
    work()
    whole = _Interrupt()
    with _traced(whole):
        work()
    assert whole.seen > count
    for at in np.random.default_rng(0).choice(whole.seen, count, replace=False):
        with pytest.raises(KeyboardInterrupt) as caught, _traced(_Interrupt(int(at) + 1)):
            work()
        yield str(caught.value)


@pytest.fixture
def training() -> Model:
    module = tiny_vit(depth=2).train()
    module.blocks[0].eval()
    module.blocks[1].attn.fused_attn = False
    return gradtoken.wrap(module)


@pytest.mark.parametrize("part", ["blocks.0", "blocks.1", "blocks.1.mlp", "norm", "head"])
@pytest.mark.parametrize("method", ["gradtoken", "gae", "cdam", "smoothgrad", "vit-cx"])
def test_interrupted_blocks_leave_model_unchanged(training: Model, part: str, method: str) -> None:
    options = methods()[method].trial
    gradtoken.explain(training, images_for((64, 64)), 1, method=method, **options)
    before = state_of(training.module)
    passes = 0

    def interrupt(*_: object) -> None:
        nonlocal passes
        passes += 1
        if passes == wanted:
            raise KeyboardInterrupt

    for wanted in (1, 2, 3):
        passes = 0
        handle = training.module.get_submodule(part).register_forward_hook(interrupt)
        try:
            gradtoken.explain(training, images_for((64, 64)), [1, 2], method=method, **options)
        except KeyboardInterrupt:
            pass
        else:
            assert passes < wanted
        finally:
            handle.remove()
        assert state_of(training.module) == before
    assert passes or wanted > 1


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gradtoken", {"gradient": "stream"}),
        ("gradtoken", {"gradient": "full"}),
        ("cdam", {}),
        ("attcat", {}),
        ("smoothgrad", {"samples": 2}),
        ("transformer-attribution", {}),
        ("rise", {"masks": 4}),
    ],
)
def test_interrupted_explain_leaves_model_unchanged(
    training: Model, method: str, options: dict[str, Any]
) -> None:
    images = images_for((64, 64))

    def work() -> None:
        gradtoken.explain(training, images, [1, 2], method=method, **options)

    work()
    before = state_of(training.module)
    for at in _at_random_lines(work, 40):
        assert state_of(training.module) == before, at


def test_interrupted_backward_leaves_model_unchanged(training: Model) -> None:
    before = state_of(training.module)

    class Interrupted(nn.Module):
        armed = False

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            def interrupt(_: torch.Tensor) -> None:
                raise KeyboardInterrupt

            if self.armed and tokens.requires_grad:
                tokens = tokens.clone()
                tokens.register_hook(interrupt)
            return tokens

    norm = training.module.norm
    interrupted = Interrupted()
    training.module.norm = nn.Sequential(norm, interrupted)
    try:
        wrapped = gradtoken.wrap(training.module)
        interrupted.armed = True
        with pytest.raises(KeyboardInterrupt):
            gradtoken.explain(wrapped, images_for((64, 64)), [1, 2], gradient="full")
    finally:
        training.module.norm = norm
    assert state_of(training.module) == before


def _whole(folder: Path) -> None:
    """A result is there with everything its manifest lists, or it has no manifest; nothing else."""
    names = set(files_in(folder))
    assert not [name for name in names if name.startswith(".")], names
    if saving.MANIFEST in names:
        listed = json.loads((folder / saving.MANIFEST).read_text())["files"]
        assert {*listed["overlays"], listed["summary"], listed["tokens"]} <= names


def test_interrupted_save_leaves_whole_folder(
    training: Model, picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradtoken.Explanation, "figure", lambda *_, **__: _Figure())
    first, second = (gradtoken.explain(training, picture, ids) for ids in ([1, 2], [3]))
    folder = tmp_path / "out"

    def work() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        first.save(folder)
        second.save(folder)

    for at in _at_random_lines(work, 60):
        if folder.exists():
            _whole(folder)
        first.save(folder)
        assert "00_class-1.png" in files_in(folder), at


class _Figure:
    def savefig(self, path: Path, **_: Any) -> None:
        path.write_bytes(b"figure")


_STEPS = ["os.replace", "np.savez_compressed", "json.dumps", "display.overlay", "tempfile.mkdtemp"]


@pytest.mark.parametrize("step", _STEPS)
def test_interrupted_writer_leaves_no_manifest(
    training: Model,
    picture: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    found = gradtoken.explain(training, picture, [1, 2])
    home, name = step.split(".")
    real, calls = getattr(getattr(saving, home), name), 0

    def interrupt(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == wanted:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(getattr(saving, home), name, interrupt)
    for wanted in range(1, 6):
        calls = 0
        folder = tmp_path / f"{wanted}"
        try:
            found.save(folder)
        except KeyboardInterrupt:
            if folder.exists():
                _whole(folder)
                assert saving.MANIFEST not in files_in(folder)
        else:
            assert calls < wanted
            break


def test_interrupted_bench_resumes_to_same_records(training: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in "ab"]
    masks = np.zeros((2, 64, 64), bool)
    masks[0, :20], masks[1, 40:] = True, True
    samples = [
        Sample(f"{i}", picture, ("class 1", "class 2"), masks) for i, picture in enumerate(pictures)
    ]
    chosen = {"gradtoken": make_method("gradtoken"), "rollout": make_method("rollout")}
    folder = tmp_path / "bench"

    def work() -> np.ndarray:
        store = Store(folder, {"a": 1})
        outcome = run(
            training,
            chosen,
            samples,
            ["localization", "coupling"],
            store,
            limit=2,
            slow_limit=0,
            whole=False,
        )
        return store.read(outcome.images).value

    expected = work()
    before = state_of(training.module)
    shutil.rmtree(folder)

    def anew() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        work()

    for at in _at_random_lines(anew, 40):
        assert state_of(training.module) == before, at
        assert not [name for name in files_in(folder) if ".part-" in name], at
        np.testing.assert_array_equal(work(), expected)


@pytest.mark.slow
def test_interrupted_explain_command_exits_with_130(tmp_path: Path) -> None:
    import signal
    import subprocess

    Image.effect_noise((64, 64), 60).convert("RGB").save(tmp_path / "a.png")
    for number in range(400):
        os.link(tmp_path / "a.png", tmp_path / f"a{number}.png")
    command = [sys.executable, "-c", "from gradtoken.cli import main; main()", "explain"]
    process = subprocess.Popen(
        [*command, str(tmp_path), "--device", "cpu", "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
    )

    def explained() -> list[Path]:
        assert process.poll() is None, "it ended before it could be interrupted"
        return list((tmp_path / "out").glob("*/manifest.json"))

    until(explained)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, words
    assert "interrupted; what was saved before is complete" in words
    assert "Traceback" not in words
    for folder in (tmp_path / "out").iterdir():
        _whole(folder)
