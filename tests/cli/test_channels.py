"""The command line with models of one and of four channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from tests.cli.test_cli import run

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


def test_images_for_a_model_of_one_channel(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    model = ["--model", NAME, "--checkpoint", weights(1, tmp_path / "w.safetensors")]
    code, out, err = run(capsys, "explain", photos, *model, "--out", tmp_path / "maps")
    assert (code, err) == (0, "")
    assert out.count("│ class ") == 2
    for mode in ("L", "RGB"):
        with Image.open(tmp_path / "maps" / mode / "summary.png") as summary:
            assert summary.width > 200
    code, out, err = run(
        capsys, "batch", photos, *model, "--targets", "top:1", "--out", tmp_path / "b"
    )
    assert (code, "2 pictures, 2 rows" in out) == (0, True)


@pytest.mark.parametrize("command", ["explain", "batch", "compare", "serve"])
def test_files_cannot_have_more_channels(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path, command: str
) -> None:
    given = {
        "explain": [photos, "--out", tmp_path / "o"],
        "batch": [photos, "--targets", "top:1", "--out", tmp_path / "o"],
        "compare": [photos / "RGB.png", "--out", tmp_path / "o.png", "--method", "gradtoken"],
        "serve": [],
    }
    model = ["--model", NAME, "--checkpoint", weights(4, tmp_path / "w.safetensors")]
    code, _, err = run(capsys, command, *given[command], *model)
    assert code == 1
    assert "takes 4 channels, and this image has 3; give an array (H, W, 4)" in err
    assert not (tmp_path / "o.png").exists()
