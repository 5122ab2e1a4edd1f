"""`gradtoken bench`: everything it writes, going on after an interruption, refusals."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from gradtoken.cli.app import app
from gradtoken.errors import GradTokenError
from tests.waiting import until

ARGUMENTS = [
    "bench",
    "--methods",
    "gradtoken,rollout,legrad",
    "--limit",
    "3",
    "--slow-limit",
    "1",
]


@pytest.fixture(autouse=True)
def commands() -> None:
    from gradtoken.cli import commands  # noqa: F401


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_tables_figures_and_going_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(*ARGUMENTS, "--out", str(whole))
    names = {p.name for p in whole.iterdir()}
    tables = {f"{n}.{s}" for n in ("summary", "differences") for s in ("csv", "md", "tex")}
    assert tables | {"curves.png", "bars.png", "sheet.png", "settings.json", "records"} == names
    with (whole / "summary.csv").open() as file:
        found = {(r["method"], r["metric"]): r for r in csv.DictReader(file)}
    assert found["rollout", "coupling"]["mean"] == "1"
    assert found["gradtoken", "positive_auc"]["n"] == "1"
    assert int(found["gradtoken", "pointing"]["n"]) >= 6
    assert float(found["gradtoken", "share"]["mean"]) > float(found["rollout", "share"]["mean"])
    for name in ("curves", "bars", "sheet"):
        assert min(Image.open(whole / f"{name}.png").size) > 300

    from gradtoken.bench.store import Store

    add, calls = Store.add, []

    def add_twice(self: Store, picture: str, *records: object) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(picture)
        add(self, picture, *records)

    monkeypatch.setattr(Store, "add", add_twice)
    CliRunner().invoke(app, [*ARGUMENTS, "--out", str(broken)])
    assert len(list((broken / "records").iterdir())) == 2
    assert not (broken / "summary.csv").exists()
    monkeypatch.setattr(Store, "add", add)
    before = {p.name: p.stat().st_mtime_ns for p in (broken / "records").iterdir()}
    run(*ARGUMENTS, "--out", str(broken))
    after = {p.name: p.stat().st_mtime_ns for p in (broken / "records").iterdir()}
    assert before.items() <= after.items()
    for name in ("summary.csv", "differences.csv"):
        assert (broken / name).read_text() == (whole / name).read_text()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_run_goes_on_to_the_same_tables(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    question = ["bench", "--methods", "gradtoken,rollout", "--metrics", "localization,coupling"]
    question += ["--limit", "6"]
    run(*question, "--out", str(whole))
    code = "from gradtoken.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *question, "--out", str(broken)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def recorded() -> list[Path]:
        assert process.poll() is None, "it ended before it could be killed"
        return list(broken.glob("records/*.parquet"))

    try:
        until(recorded)
    finally:
        process.kill()
        process.wait()
    done = {p.name: p.stat().st_mtime_ns for p in broken.glob("records/*.parquet")}
    assert not (broken / "summary.csv").exists()
    run(*question, "--out", str(broken))
    for name in ("summary.csv", "differences.csv", "summary.md"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert all((broken / "records" / n).stat().st_mtime_ns == then for n, then in done.items())
    assert {p.name for p in broken.glob("records/*")} == {p.name for p in whole.glob("records/*")}


@pytest.mark.slow
def test_methods_that_refuse_are_left_out_by_name(tmp_path: Path) -> None:
    from gradtoken.datasets import Scenes

    for label in ("3", "5"):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        Scenes("test", objects=1)[int(label)].image.save(folder / "a.png")
    model = "timm/swin_tiny_patch4_window7_224"
    from safetensors.torch import save_file

    import gradtoken

    weights = tmp_path / "w.safetensors"
    save_file(gradtoken.load(model, pretrained=False).module.state_dict(), weights)
    out = tmp_path / "out"
    output = run(
        *("bench", "--model", model, "--checkpoint", str(weights)),
        *("--data", f"folder:{tmp_path / 'pictures'}", "--every-picture"),
        *("--methods", "gradtoken,rollout", "--metrics", "perturbation,top1-random"),
        *("--out", str(out)),
    )
    assert "positive_auc" in output
    table = (out / "summary.md").read_text()
    assert "top1_random" in table
    assert "rollout" not in table
    result = CliRunner().invoke(
        app,
        [
            *("bench", "--model", model, "--checkpoint", str(weights), "--every-picture"),
            *("--data", f"folder:{tmp_path / 'pictures'}", "--methods", "rollout"),
            *("--out", str(tmp_path / "none")),
        ],
    )
    assert "none of the methods can serve timm/swin_tiny" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metrics", "localisation"], "no group of metrics is named 'localisation'; did you"),
        (["--methods", "gradtokn"], "no method is named 'gradtokn'; did you mean 'gradtoken'"),
        (["--data", "scenes:many"], "no data set is named 'scenes:many'"),
        (["--data", "voc:/nowhere"], "/nowhere holds no VOC2012"),
    ],
)
def test_bad_questions_are_refused(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments, "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, GradTokenError)
    assert words in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_methods_with_options(tmp_path: Path) -> None:
    out = tmp_path / "out"
    methods = "gradtoken, gradtoken:preset=sharp:layers=[-1], gradtoken:target=rivals(3, 0.2)"
    run(
        *("bench", "--methods", methods, "--metrics", "localization"),
        *("--limit", "2", "--out", str(out)),
    )
    with (out / "summary.csv").open() as file:
        names = list(dict.fromkeys(row["method"] for row in csv.DictReader(file)))
    assert names == [
        "gradtoken",
        "gradtoken:preset=sharp:layers=[-1]",
        "gradtoken:target=rivals(3, 0.2)",
    ]
    settings = json.loads((out / "settings.json").read_text())
    assert settings["methods"][names[1]]["rectify"] == "head"
    assert settings["methods"][names[1]]["layers"] == [-1]


def test_a_method_that_fails_on_an_image_is_told_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradtoken.attribution.attention.legrad import LeGrad
    from gradtoken.errors import MethodError

    made, calls = LeGrad.__call__, []

    def first_fails(self: LeGrad, *args: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise MethodError("legrad gave NaN or infinite relevance for demo.")
        return made(self, *args)

    monkeypatch.setattr(LeGrad, "__call__", first_fails)
    command = [
        "bench",
        "--methods",
        "gradtoken,legrad",
        "--metrics",
        "localization",
        "--limit",
        "4",
    ]
    result = CliRunner().invoke(app, [*command, "--json", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "legrad failed on 1 of 4 pictures: legrad gave NaN or infinite" in result.stderr
    told = json.loads(result.stdout)
    assert told["refused"] == {}
    assert told["failed"]["legrad"]["count"] == 1
    assert told["failed"]["legrad"]["of"] == 4
    assert set(told["left_out"]) == {"images", "names", "objects"}
    with (tmp_path / "summary.csv").open() as file:
        found = {(r["method"], r["metric"]): r for r in csv.DictReader(file)}
    assert found["legrad", "failed"]["mean"] == "0.25"
    assert found["gradtoken", "failed"]["mean"] == "0"
    assert int(found["legrad", "pointing"]["n"]) < int(found["gradtoken", "pointing"]["n"])
    assert "| failed" in (tmp_path / "summary.md").read_text()


def test_other_weights_at_the_same_path_are_another_run(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    import gradtoken
    from gradtoken.datasets import Scenes

    folder = tmp_path / "pictures" / "3"
    folder.mkdir(parents=True)
    Scenes("test", objects=1)[3].image.save(folder / "a.png")
    name, weights, out = "timm/vit_tiny_patch16_224", tmp_path / "w.safetensors", tmp_path / "out"
    state = gradtoken.load(name, pretrained=False).module.state_dict()
    save_file(state, weights)
    command = [
        *("bench", "--model", name, "--checkpoint", str(weights), "--every-picture"),
        *("--data", f"folder:{tmp_path / 'pictures'}", "--methods", "raw-attention"),
        *("--metrics", "top1-random", "--out", str(out)),
    ]
    run(*command)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    state["blocks.3.attn.qkv.weight"][0, 0] += torch.tensor(1e-3)
    save_file(state, weights)
    result = CliRunner().invoke(app, command)
    assert "holds a run of other settings (weights_sha256)" in str(result.exception)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_another_runs_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    quick = [
        "bench",
        "--methods",
        "rollout",
        "--limit",
        "1",
        "--slow-limit",
        "0",
        "--out",
        str(out),
    ]
    run(*quick, "--metrics", "localization")
    result = CliRunner().invoke(app, [*quick, "--metrics", "coupling"])
    assert "holds a run of other settings (metrics)" in str(result.exception)
