"""`gradtoken bench`: what it writes, resuming, and errors."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from gradtoken.errors import GradTokenError, OutputError
from tests.cli.program import PROGRAM, invoke, json_lines, stdout
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


@pytest.mark.slow
def test_bench_writes_tables_and_plots_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    stdout(*ARGUMENTS, "--out", str(whole))
    names = {p.name for p in whole.iterdir()}
    tables = {f"{n}.{s}" for n in ("summary", "differences") for s in ("csv", "md", "tex")}
    figures = {f"{name}.png" for name in ("curves", "bars", "sheet", "agreement")}
    assert tables | figures | {"agreement.csv", "settings.json", "records"} == names
    with (whole / "summary.csv").open() as file:
        rows = {(r["method"], r["metric"]): r for r in csv.DictReader(file)}
    assert rows["rollout", "coupling"]["mean"] == "1"
    assert rows["gradtoken", "positive_auc"]["n"] == "3"
    assert rows["gradtoken", "contrast_response"]["n"] == rows["legrad", "contrast_response"]["n"]
    assert int(rows["gradtoken", "contrast_response"]["n"]) <= 3
    assert int(rows["gradtoken", "pointing"]["n"]) >= 6
    assert float(rows["gradtoken", "share"]["mean"]) > float(rows["rollout", "share"]["mean"])
    for name in ("curves", "bars", "sheet", "agreement"):
        assert min(Image.open(whole / f"{name}.png").size) > 300

    from gradtoken.bench.store import Store

    add, calls = Store.add, []

    def add_twice(self: Store, picture: str, *records: object) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(picture)
        add(self, picture, *records)

    monkeypatch.setattr(Store, "add", add_twice)
    invoke(*ARGUMENTS, "--out", broken)
    assert len(list((broken / "records").iterdir())) == 2
    assert not (broken / "summary.csv").exists()
    monkeypatch.setattr(Store, "add", add)
    before = {p.name: p.stat().st_mtime_ns for p in (broken / "records").iterdir()}
    stdout(*ARGUMENTS, "--out", str(broken))
    after = {p.name: p.stat().st_mtime_ns for p in (broken / "records").iterdir()}
    assert before.items() <= after.items()
    for name in ("summary.csv", "differences.csv"):
        assert (broken / name).read_text() == (whole / name).read_text()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_bench_resumes_after_a_kill_to_the_same_tables(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ["bench", "--methods", "gradtoken,rollout", "--metrics", "localization,coupling"]
    command += ["--limit", "6"]
    stdout(*command, "--out", str(whole))
    process = subprocess.Popen(
        [*PROGRAM, *command, "--out", str(broken)],
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
    stdout(*command, "--out", str(broken))
    for name in ("summary.csv", "differences.csv", "summary.md"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert all((broken / "records" / n).stat().st_mtime_ns == time for n, time in done.items())
    assert {p.name for p in broken.glob("records/*")} == {p.name for p in whole.glob("records/*")}


@pytest.mark.slow
def test_bench_omits_methods_that_do_not_support_the_model(tmp_path: Path) -> None:
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
    output = stdout(
        *("bench", "--model", model, "--checkpoint", str(weights)),
        *("--data", f"folder:{tmp_path / 'pictures'}", "--every-image"),
        *("--methods", "gradtoken,rollout", "--metrics", "perturbation,top1-random"),
        *("--out", str(out)),
    )
    assert "positive_auc" in output
    table = (out / "summary.md").read_text()
    assert "top1_random" in table
    assert "rollout" not in table
    result = invoke(
        *("bench", "--model", model, "--checkpoint", weights, "--every-image"),
        *("--data", f"folder:{tmp_path / 'pictures'}", "--methods", "rollout"),
        *("--out", tmp_path / "none"),
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
def test_bench_rejects_unknown_names(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = invoke("bench", *arguments, "--out", tmp_path / "out")
    assert isinstance(result.exception, GradTokenError)
    assert words in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_bench_methods_with_options(tmp_path: Path) -> None:
    out = tmp_path / "out"
    methods = "gradtoken, gradtoken:preset=sharp:layers=[-1], gradtoken:target=rivals(3, 0.2)"
    stdout(
        *("bench", "--methods", methods, "--metrics", "localization"),
        *("--limit", "2", "--out", str(out)),
    )
    with (out / "summary.csv").open() as file:
        names = list(dict.fromkeys(row["method"] for row in csv.DictReader(file)))
    assert names == [
        "gradtoken",
        "gradtoken:preset=sharp:layers=[-1]",
        "gradtoken:target=rivals(3, 0.2)",
        "random",
    ]
    settings = json.loads((out / "settings.json").read_text())
    assert settings["methods"][names[1]]["rectify"] == "head"
    assert settings["methods"][names[1]]["layers"] == [-1]


def test_bench_reports_and_counts_a_method_that_fails_on_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradtoken.attribution.attention.legrad import LeGrad
    from gradtoken.errors import MethodError

    call, calls = LeGrad.__call__, []

    def first_fails(self: LeGrad, *args: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise MethodError("legrad gave NaN or infinite relevance for demo.")
        return call(self, *args)

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
    result = invoke(*command, "--json", "--out", tmp_path)
    assert result.exit_code == 1
    assert "legrad failed on 1 of 4 images: legrad gave NaN or infinite" in result.stderr
    document = json.loads(result.stdout)
    assert document["refused"] == {}
    assert document["failed"]["legrad"]["count"] == 1
    assert document["failed"]["legrad"]["of"] == 4
    assert set(document["left_out"]) == {"images", "names", "objects"}
    with (tmp_path / "summary.csv").open() as file:
        rows = {(r["method"], r["metric"]): r for r in csv.DictReader(file)}
    assert rows["legrad", "failed"]["mean"] == "0.25"
    assert rows["gradtoken", "failed"]["mean"] == "0"
    assert int(rows["legrad", "pointing"]["n"]) < int(rows["gradtoken", "pointing"]["n"])
    assert "| failed" in (tmp_path / "summary.md").read_text()


def test_bench_rejects_resume_with_other_weights_at_the_same_path(tmp_path: Path) -> None:
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
        *("bench", "--model", name, "--checkpoint", str(weights), "--every-image"),
        *("--data", f"folder:{tmp_path / 'pictures'}", "--methods", "raw-attention"),
        *("--metrics", "top1-random", "--out", str(out)),
    ]
    stdout(*command)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    state["blocks.3.attn.qkv.weight"][0, 0] += torch.tensor(1e-3)
    save_file(state, weights)
    result = invoke(*command)
    assert "holds a run of other settings (weights_sha256)" in str(result.exception)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_bench_rejects_the_folder_of_another_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
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
    stdout(*command, "--metrics", "localization")
    result = invoke(*command, "--metrics", "coupling")
    assert "holds a run of other settings (metrics)" in str(result.exception)


def test_bench_rejects_resume_with_another_activation(tmp_path: Path) -> None:
    command = (
        *("bench", "--methods", "gradtoken", "--metrics", "perturbation,insertion-deletion"),
        *("--limit", 1, "--slow-limit", 1, "--every-image", "--out", tmp_path, "--json"),
    )
    document = json.loads(stdout(*command, "--activation", "none"))
    assert document["settings"]["activation"] == "none"
    metrics = {row["metric"] for row in document["summary"]}
    assert metrics == {
        *("positive_probability", "negative_probability", "insertion", "deletion", "aopc", "abpc")
    }
    with pytest.raises(OutputError, match=r"a run of other settings \(activation, methods\)"):
        stdout(*command)


def test_bench_as_json(tmp_path: Path) -> None:
    command = ("bench", "--methods", "gradtoken,rollout", "--metrics", "coupling", "--limit", 2)
    (document,) = json_lines(*command, "--out", tmp_path / "bench")
    rows = {(row["method"], row["metric"]): row for row in document["summary"]}
    assert rows["rollout", "coupling"]["mean"] == pytest.approx(1)
    assert document["images"] == 2
    assert document["differences"][0]["method"] == "rollout"
    assert all(Path(file).exists() for file in document["files"])


def test_bench_class_map(tmp_path: Path) -> None:
    from gradtoken.datasets import Scenes

    scene = Scenes("test", objects=(2, 3))[0]
    folder = tmp_path / "photos, mine"
    folder.mkdir()
    scene.image.save(folder / "a.png")
    scene.image.save(folder / "b.png")
    side = scene.image.width
    box = [0, 0, side, 0, side, side // 2, 0, side // 2]
    listed = {
        "images": [
            {"id": n, "file_name": f"{name}.png", "width": side, "height": side}
            for n, name in enumerate("ab")
        ],
        "categories": [{"id": 1, "name": "thing"}, {"id": 2, "name": "speck"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": n + 1, "segmentation": [shape], "iscrowd": 0,
             "bbox": [0, 0, 1, 1], "area": 1}
            for n, shape in enumerate([box, [9, 9, 10, 9, 10, 10, 9, 10]])
        ],
    }  # fmt: skip
    (tmp_path / "list.json").write_text(json.dumps(listed))
    classes = [*scene.labels[:1], *scene.names[1:]]
    mapping = tmp_path / "map.json"
    mapping.write_text(json.dumps({"thing": classes, "speck": classes, "spek": [3]}))
    command = (
        *("bench", "--data", f"coco:{folder},{tmp_path / 'list.json'}", "--class-map", mapping),
        *("--methods", "rollout", "--metrics", "localization", "--limit", 5, "--json"),
    )
    (document,) = json_lines(*command, "--out", tmp_path / "out")
    assert document["images"] == 1
    assert document["left_out"]["names"] == {
        "spek": "the class map names it, and the data set does not have it"
    }
    reason = "its objects are left out (it covers less than 0.01 of the model's input)"
    assert document["left_out"]["images"] == {reason: 1}
    assert document["settings"]["class_map"]["groups"]["thing"] == list(scene.labels)
    (document,) = json_lines(*command, "--min-area", 0, "--out", tmp_path / "small")
    assert document["images"] == 2
    result = invoke(*command, "--min-probability", 1, "--out", tmp_path / "none")
    assert "is measured with this class map (2 images: its objects are left out (the model" in str(
        result.exception
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--min-area", "0.1"], "say when a category of a class map is asked about"),
        (["--class-map", "none.json"], "the class map none.json cannot be read"),
        (["--class-map", "none.json", "--every-image"], "give one of them"),
    ],
)
def test_bench_class_map_errors(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = invoke("bench", *arguments, "--out", tmp_path / "out")
    assert isinstance(result.exception, GradTokenError)
    assert words in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_bench_text_model_with_class_names_as_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gradtoken.models
    from gradtoken.datasets.scenes.sprites import concepts

    load = gradtoken.models.load
    monkeypatch.setattr(
        "gradtoken.models.load",
        lambda spec, **options: load(spec, **{**options, "pretrained": False}),
    )
    command = (
        *("bench", "--model", "open_clip/ViT-S-32", "--methods", "gradtoken,rollout"),
        *("--metrics", "localization,coupling", "--limit", 2, "--every-picture", "--json"),
    )
    (document,) = json_lines(*command, "--out", tmp_path / "out", "--template", "a toy {}, really")
    assert document["settings"]["prompts"] == [f"a toy {name}, really" for name in concepts()]
    rows = {(row["method"], row["metric"]): row for row in document["summary"]}
    assert rows["gradtoken", "token_ap"]["n"] >= 4
    assert rows["rollout", "coupling"]["mean"] == pytest.approx(1)
    result = invoke(*command, "--out", tmp_path / "out")
    assert "holds a run of other settings" in str(result.exception)
    folder = tmp_path / "pictures" / "3"
    folder.mkdir(parents=True)
    Image.new("RGB", (30, 30)).save(folder / "a.png")
    result = invoke(*command, "--data", f"folder:{tmp_path / 'pictures'}", "--out", tmp_path / "b")
    assert "folder data sets have no list of them" in str(result.exception)
    monkeypatch.undo()
    result = invoke("bench", "--template", "a {}", "--out", tmp_path / "c")
    assert "has classes and reads no text" in str(result.exception)
