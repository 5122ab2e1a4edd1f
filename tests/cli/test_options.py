"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from gradtoken.cli.options import ModelOptions, make_methods, parse_options, parse_size
from gradtoken.errors import ModelError
from tests.cli.program import run_main

NAME = "timm/vit_tiny_patch16_224"


def weights(channels: int, path: Path) -> Path:
    options = {"num_classes": 3, "in_chans": channels, "img_size": 32, "patch_size": 16}
    save_file(timm.create_model(NAME.partition("/")[2], **options).state_dict(), path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for mode in ("L", "RGB"):
        Image.effect_noise((50, 40), 60).convert(mode).save(folder / f"{mode}.png")
    return folder


def test_model_options_load_a_model(tmp_path: Path) -> None:
    checkpoint = weights(3, tmp_path / "w.safetensors")
    options = ModelOptions(checkpoint, device="cpu", dtype="float64", activation="sigmoid")
    model = options.load(NAME)
    assert model.device.type == "cpu"
    assert str(model.dtype) == "torch.float64"
    assert model.activation == "sigmoid"
    assert ModelOptions(random_weights=True, image_size="64x32").load(NAME).spec == NAME
    with pytest.raises(ModelError, match="is no size; write 384 or 256x128"):
        ModelOptions(image_size="large").load("demo")


@pytest.mark.parametrize(
    ("text", "size"), [(None, None), ("384", 384), ("256x128", (256, 128)), ("64X32", (64, 32))]
)
def test_parse_size(text: str | None, size: object) -> None:
    assert parse_size(text) == size


def test_parse_options_reads_json_or_text() -> None:
    pairs = ["beta=0.7", "layers=[-1]", "preset=sharp", "size=None", "text=a=b"]
    assert parse_options(pairs) == {
        "beta": 0.7, "layers": [-1], "preset": "sharp", "size": None, "text": "a=b",
    }  # fmt: skip
    assert parse_options(None) == {}


def test_make_methods_makes_the_named_or_all() -> None:
    assert [method.name for method in make_methods(["gae", "rollout"])] == ["gae", "rollout"]
    assert len(make_methods(None)) > 20


def test_files_are_read_for_a_model_of_one_channel(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    model = ["--model", NAME, "--checkpoint", weights(1, tmp_path / "w.safetensors")]
    code, out, err = run_main(capsys, "explain", photos, *model, "--out", tmp_path / "maps")
    assert (code, err) == (0, "")
    assert out.count("│ class ") == 2
    for mode in ("L", "RGB"):
        with Image.open(tmp_path / "maps" / mode / "summary.png") as summary:
            assert summary.width > 200
    code, out, err = run_main(
        capsys, "batch", photos, *model, "--targets", "top:1", "--out", tmp_path / "b"
    )
    assert (code, "2 images, 2 rows" in out) == (0, True)


@pytest.mark.parametrize("command", ["explain", "batch", "compare", "serve"])
def test_files_are_rejected_for_a_model_of_four_channels(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path, command: str
) -> None:
    arguments = {
        "explain": [photos, "--out", tmp_path / "o"],
        "batch": [photos, "--targets", "top:1", "--out", tmp_path / "o"],
        "compare": [photos / "RGB.png", "--out", tmp_path / "o.png", "--method", "gradtoken"],
        "serve": [],
    }
    model = ["--model", NAME, "--checkpoint", weights(4, tmp_path / "w.safetensors")]
    code, _, err = run_main(capsys, command, *arguments[command], *model)
    assert code == 1
    assert "takes 4 channels, and this image has 3; give an array (H, W, 4)" in err
    assert not (tmp_path / "o.png").exists()
