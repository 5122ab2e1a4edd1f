"""One model, several threads: each gets the numbers that it would get alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import methods
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit
from tests.hardening.state import state_of

_THREADS = 4
_ROUNDS = 3
_GRADTOKEN = [{"gradient": "stream"}, {"gradient": "full"}, {"preset": "contrastive"}]
_OTHERS = sorted(n for n, kind in methods().items() if n != "gradtoken" and not kind.of_prompts)


def _many(model: Model, ask: Callable[[int], Tensor]) -> None:
    """Ask for several pictures at once, and see that the answers are those given one by one."""
    alone = [ask(index) for index in range(_THREADS)]
    before = state_of(model.module)
    start = threading.Barrier(_THREADS)

    def work(index: int) -> list[Tensor]:
        start.wait()
        return [ask(index) for _ in range(_ROUNDS)]

    with ThreadPoolExecutor(_THREADS) as pool:
        for index, found in enumerate(pool.map(work, range(_THREADS))):
            for tokens in found:
                torch.testing.assert_close(tokens, alone[index], rtol=1e-9, atol=1e-12)
    assert state_of(model.module) == before


@contextmanager
def _running(model: Model) -> Iterator[list[Tensor]]:
    """The plain model at work in a thread of its own; gives its outputs, all of one picture."""
    images, stop = images_for((64, 64), 1), threading.Event()
    outputs: list[Tensor] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                with torch.no_grad():
                    outputs.append(model.module(images))
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield outputs
    finally:
        stop.set()
        thread.join()
    assert not problems, problems


def _ask(model: Model, method: str, **options: object) -> Callable[[int], Tensor]:
    batch = images_for((64, 64), _THREADS)
    return lambda index: (
        gradtoken.explain(
            model, batch[index : index + 1], [index, index + 1], method=method, **options
        ).tokens
    )


@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
@pytest.mark.parametrize("options", _GRADTOKEN, ids=str)
def test_gradtoken_in_several_threads(options: dict[str, str], training: bool) -> None:
    model = gradtoken.wrap(tiny_vit(proj_drop_rate=0.5, drop_path_rate=0.5).train(training))
    _many(model, _ask(model, "gradtoken", **options))


@pytest.mark.parametrize("method", _OTHERS)
def test_methods_in_several_threads(method: str) -> None:
    model = gradtoken.wrap(tiny_vit(depth=2).train())
    _many(model, _ask(model, method, **methods()[method].trial))


@pytest.mark.parametrize("method", ["gradtoken", "gae", "cdam", "beyond-intuition", "tokentm"])
def test_explain_while_another_thread_runs_the_model(method: str) -> None:
    model = gradtoken.wrap(tiny_vit())
    expected = model(images_for((64, 64), 1))
    with _running(model) as outputs:
        _many(model, _ask(model, method))
    assert outputs
    for found in outputs:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_explain_different_methods_in_several_threads() -> None:
    model = gradtoken.wrap(tiny_vit().train())
    names = ["gradtoken", "gae", "attcat", "smoothgrad", "transformer-attribution", "rise"]
    asks = [_ask(model, name, **methods()[name].trial) for name in names]
    alone = [ask(0) for ask in asks]
    before = state_of(model.module)
    with ThreadPoolExecutor(len(asks)) as pool:
        for _ in range(_ROUNDS):
            found = list(pool.map(lambda ask: ask(0), asks))
            for name, one, expected in zip(names, found, alone, strict=True):
                torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-12, msg=name)
    assert state_of(model.module) == before
