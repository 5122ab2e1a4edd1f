"""Fine-tuning on images with a deleted part: what is deleted, stopping, and resuming."""

from __future__ import annotations

import json
import os
import signal
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import finetune_in_domain as tool
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import gradtoken
from gradtoken.bench.in_domain import load_in_domain
from gradtoken.datasets import Scenes


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def options(out: Path, **changes: object) -> Namespace:
    settings = {
        "command": "train",
        "model": "demo",
        "checkpoint": None,
        "images": None,
        "test": None,
        "tests": 3,
        "deletion": "cell",
        "seed": 1,
        "workers": 0,
        "out": out,
        "resume": False,
        "steps": 3,
        "batch": 2,
        "lr": 1e-4,
        "save_minutes": 60.0,
    }
    return Namespace(**{**settings, **changes})


def test_cell_is_deleted_in_half_of_the_images() -> None:
    away = tool.deletions("cell", (400, 32, 32), torch.Generator().manual_seed(0))
    assert away.shape == (400, 1, 32, 32)
    sizes = away.sum(dim=(1, 2, 3))
    assert set(sizes.tolist()) == {0, 64}
    assert 160 < int((sizes == 64).sum()) < 240
    first = away[sizes == 64].flatten(1).int().argmax(1)
    assert {(int(p) // 32 // 8, int(p) % 32 // 8) for p in first} == {
        (row, column) for row in range(4) for column in range(4)
    }


def test_a_tenth_of_the_pixels_is_deleted_in_each_image() -> None:
    away = tool.deletions("pixels", (5, 20, 30), torch.Generator().manual_seed(0))
    assert away.sum(dim=(1, 2, 3)).tolist() == [60] * 5
    assert not torch.equal(away[0], away[1])


def test_training_stopped_by_a_signal_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.run_train(options(tmp_path / "whole"))
    one_step, seen = tool.step, []

    def stopped(*args: object) -> float:
        seen.append(args[-1])
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*args)

    monkeypatch.setattr(tool, "step", stopped)
    handler = signal.getsignal(signal.SIGTERM)
    tool.run_train(options(tmp_path / "parts"))
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not (tmp_path / "parts" / "in_domain.safetensors").exists()
    tool.run_train(options(tmp_path / "parts", resume=True))
    assert seen == [0, 1, 2]
    weights = [tmp_path / name / "in_domain.safetensors" for name in ("whole", "parts")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").open()]
    assert [line["weights"] for line in lines] == ["before", "after"]
    assert all(line["images"] == 3 for line in lines)


def test_weights_describe_their_fine_tuning_and_load(tmp_path: Path) -> None:
    tool.run_train(options(tmp_path, steps=1, deletion="pixels"))
    path = tmp_path / "in_domain.safetensors"
    with safe_open(str(path), "pt") as opened:
        facts = json.loads(opened.metadata()["gradtoken"])
        assert all(opened.get_tensor(name).dtype == torch.float16 for name in opened.keys())  # noqa: SIM118
    assert facts["fine_tuning"]["deletion"] == "pixels"
    before, after = gradtoken.load("demo"), gradtoken.load(path)
    assert list(after.labels) == list(before.labels)
    images = before.preprocess(Scenes("test")[0].image)[None]
    assert not torch.equal(before(images), after(images))


def test_other_models_are_trained_on_folders_of_images(tmp_path: Path) -> None:
    model = gradtoken.load("timm/test_vit", pretrained=False, device="cpu")
    save_file(model.module.state_dict(), tmp_path / "mine.safetensors")
    for label in ("3", "5"):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        Scenes("test", objects=1)[int(label)].image.save(folder / "a.png")
    pictures = {"images": str(tmp_path / "pictures"), "test": str(tmp_path / "pictures")}
    mine = {"model": "timm/test_vit", "checkpoint": str(tmp_path / "mine.safetensors")}
    tool.run_train(options(tmp_path / "out", steps=2, tests=2, **pictures, **mine))
    tuned = load_in_domain(model, str(tmp_path / "out" / "in_domain.safetensors"))
    images = torch.zeros(1, 3, 160, 160)
    assert not torch.equal(tuned(images), model(images))
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").open()]
    assert [line["images"] for line in lines] == [2, 2]


def test_measure_counts_classes_among_the_first(tmp_path: Path) -> None:
    model = gradtoken.load("demo")
    args = options(tmp_path)
    rows = list(tool.hits(model, tool.test_images(args), 3, args))
    for index, (whole, _) in enumerate(rows):
        scene = Scenes("test", 112, (1, 3), seed=7)[index]
        logits = model(model.preprocess(scene.image)[None])[0]
        best = logits.topk(len(scene.labels)).indices.tolist()
        assert whole == pytest.approx(len(set(best) & set(scene.labels)) / len(scene.labels))


def test_models_are_trained_on_images_that_they_know(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="demo is trained on its own scenes"):
        tool.check_data(options(tmp_path, images="somewhere"))
    with pytest.raises(SystemExit, match="timm/vit needs --images and --test"):
        tool.check_data(options(tmp_path, model="timm/vit", test="somewhere"))
    folder = tmp_path / "pictures" / "no such class"
    folder.mkdir(parents=True)
    Scenes("test")[0].image.save(folder / "a.png")
    samples = tool.ImageFolder(tmp_path / "pictures")
    with pytest.raises(SystemExit, match="which the model has no class for"):
        tool.Labelled(gradtoken.load("demo"), samples, 0)[0]


def test_folders_are_read_in_an_order_of_the_seed(tmp_path: Path) -> None:
    folder = tmp_path / "dog"
    folder.mkdir()
    for index in range(3):
        Scenes("test")[index].image.save(folder / f"{index}.png")
    samples = tool.ImageFolder(tmp_path)
    places = [
        [tool.Labelled(gradtoken.load("demo"), samples, seed).place(i) for i in range(30)]
        for seed in (0, 0, 1)
    ]
    assert places[0] == places[1] != places[2]
    assert all(sorted(places[0][i : i + 3]) == [0, 1, 2] for i in range(0, 30, 3))
