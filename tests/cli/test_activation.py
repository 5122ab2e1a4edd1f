"""`--activation` on every command that loads a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import gradtoken
from gradtoken.cli import commands  # noqa: F401
from gradtoken.cli.app import app
from gradtoken.datasets import Scenes
from gradtoken.errors import GradTokenError, OutputError, TargetError


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Scenes("test", objects=2)[0].image.save(path)
    return path


def sigmoids(path: Path) -> dict[str, float]:
    model = gradtoken.load("demo", device="cpu")
    values = model(model.preprocess(Image.open(path))[None])[0].sigmoid().tolist()
    return dict(zip(model.labels, values, strict=True))


def test_explain_shows_it(scene: Path, tmp_path: Path) -> None:
    command = ("explain", scene, "--top-k", 2, "--out", tmp_path / "out", "--device", "cpu")
    expected = sigmoids(scene)
    (line,) = run(*command, "--activation", "sigmoid", "--json").splitlines()
    record = json.loads(line)
    assert record["model"]["activation"] == "sigmoid"
    for target in record["targets"]:
        assert target["probability"] == pytest.approx(expected[target["label"]], rel=1e-4)
    manifest = json.loads((tmp_path / "out" / "scene" / "manifest.json").read_text())
    assert manifest["model"]["activation"] == "sigmoid"
    table = run(*command, "--activation", "sigmoid")
    assert f"{record['targets'][0]['probability']:.3f}" in table
    assert "nan" not in run(*command, "--activation", "none").lower()
    with pytest.raises(GradTokenError, match="activation is 'relu'; it can be 'softmax'"):
        run(*command, "--activation", "relu")


def test_bench_measures_and_resumes_by_it(tmp_path: Path) -> None:
    command = (
        *("bench", "--methods", "gradtoken", "--metrics", "perturbation,insertion-deletion"),
        *("--limit", 1, "--slow-limit", 1, "--every-picture", "--out", tmp_path, "--json"),
    )
    found = json.loads(run(*command, "--activation", "none"))
    assert found["settings"]["activation"] == "none"
    metrics = {row["metric"] for row in found["summary"]}
    assert metrics == {
        *("positive_probability", "negative_probability", "insertion", "deletion", "aopc", "abpc")
    }
    with pytest.raises(OutputError, match=r"a run of other settings \(activation, methods\)"):
        run(*command)


def test_check_says_it() -> None:
    name = "timm/vit_tiny_patch16_224"
    assert json.loads(run("check", name, "--json"))["activation"] == "softmax"
    found = json.loads(run("check", name, "--activation", "sigmoid", "--json"))
    assert found["activation"] == "sigmoid"


def test_every_command_that_loads_a_model_takes_it() -> None:
    group = typer.main.get_command(app)
    taking = {name for name, command in group.commands.items() if _has(command, "--device")}
    taking |= {
        f"batch {n}" for n, c in group.commands["batch"].commands.items() if _has(c, "--device")
    }
    assert taking == {"explain", "compare", "coupling", "bench", "check", "serve", "batch run"}
    for name in taking:
        command = group
        for part in name.split():
            command = command.commands[part]
        assert _has(command, "--activation"), name


def _has(command, option: str) -> bool:
    return any(option in parameter.opts for parameter in command.params)


def test_every_class_above_a_probability(scene: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    Image.new("RGB", (112, 112), (128, 128, 128)).save(grey)
    expected = {n: p for n, p in sigmoids(scene).items() if p > 0.97}
    assert len(expected) > 1
    command = ("explain", scene, grey, "--activation", "sigmoid", "--device", "cpu")
    result = CliRunner().invoke(
        app, [*map(str, command), "--above", "0.97", "--json", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 1
    first, second = map(json.loads, result.stdout.splitlines())
    assert {t["label"] for t in first["targets"]} == set(expected)
    assert second["picture"] == str(grey)
    assert "no class has a probability above 0.97; the largest is 0." in second["error"]
    assert not (tmp_path / "out" / "grey").exists()
    for other in (("--top-k", 2), ("--target", "banana"), ("--text", "a cat")):
        with pytest.raises(TargetError, match="--above"):
            run(*command, "--above", 0.5, *other)


def test_batch_takes_it_too(scene: Path, tmp_path: Path) -> None:
    command = ("batch", scene.parent, "--out", tmp_path / "out", "--activation", "sigmoid")
    run(*command, "--above", 0.9, "--json")
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert settings["targets"] == {"above": 0.9}
    with pytest.raises(TargetError, match="--targets and --above both choose the classes"):
        run(*command, "--above", 0.9, "--targets", "all")
