"""Models in worker processes, however they are started."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

import gradtoken
from gradtoken.errors import GradTokenError
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit

_LIMIT_S = 60


def _explain(model: Model, gradient: str) -> list[float]:
    batch = images_for((64, 64), 2)
    return gradtoken.explain(model, batch, [1, 2], gradient=gradient).tokens.flatten().tolist()


def _report(results: Any, work: Callable[..., Any], *given: Any) -> None:
    try:
        results.put(("done", work(*given)))
    except BaseException as error:
        results.put((type(error).__name__, str(error)))


def _in_a_process(how: str, work: Callable[..., Any], *given: Any) -> tuple[str, Any]:
    """What a function gives in a process of its own, which is killed when it hangs."""
    context = multiprocessing.get_context(how)
    results = context.SimpleQueue()
    process = context.Process(target=_report, args=(results, work, *given))
    process.start()
    process.join(_LIMIT_S)
    if process.is_alive():
        process.kill()
        process.join()
        return "hang", None
    return results.get() if not results.empty() else (f"exit {process.exitcode}", None)


@pytest.fixture
def used() -> Model:
    """A model that has been at work on several threads, as in a parent that forks late."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    model = gradtoken.wrap(tiny_vit())
    (torch.ones(600, 600) @ torch.ones(600, 600)).exp().sum()
    yield model
    torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="fork is for Linux")
@pytest.mark.parametrize("gradient", ["stream", "full"])
def test_explain_in_forked_process(used: Model, gradient: str) -> None:
    expected = _explain(used, gradient)
    outcome, found = _in_a_process("fork", _explain, used, gradient)
    assert (outcome, found) == ("done", pytest.approx(expected, rel=1e-9))


def _build_and_explain() -> list[float]:
    return _explain(gradtoken.wrap(tiny_vit()), "stream")


def test_explain_in_spawned_process() -> None:
    expected = _build_and_explain()
    outcome, found = _in_a_process("spawn", _build_and_explain)
    assert (outcome, found) == ("done", pytest.approx(expected, rel=1e-9))


@pytest.mark.skipif(sys.platform != "linux", reason="fork is for Linux")
def test_explain_in_process_forked_while_evaluating(used: Model) -> None:
    used.module.train()
    with used.evaluating():
        outcome, (found, training) = _in_a_process("fork", _explain_and_look, used)
    assert outcome == "done"
    assert found == pytest.approx(_explain(used, "stream"), rel=1e-9)
    assert training
    assert used.module.training


def _explain_and_look(model: Model) -> tuple[list[float], bool]:
    before = all(part.training for part in model.module.modules())
    return _explain(model, "stream"), before and model.module.training


@pytest.mark.skipif(sys.platform != "linux", reason="fork is for Linux")
def test_fork_without_gradtoken_keeps_torch_threads(used: Model) -> None:
    _explain(used, "stream")
    assert torch.get_num_threads() == 2
    outcome, threads = _in_a_process("fork", torch.get_num_threads)
    assert (outcome, threads) == ("done", 2), "a fork that does not use gradtoken is left alone"


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_errors_are_pickled_from_processes(how: str) -> None:
    outcome, words = _in_a_process(how, gradtoken.load, "no such model")
    assert outcome == "ModelError"
    assert issubclass(getattr(gradtoken, outcome), GradTokenError)
    assert "no model is named" in words
