"""Every type of image is read as RGB, or raises an error with one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradtoken.errors import ImageError
from gradtoken.images.load_image import load_image


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_load_image_keeps_rgb(tmp_path: Path, picture: Image.Image) -> None:
    read = load_image(saved(tmp_path, picture, "a.png"))
    assert read.mode == "RGB"
    assert np.array_equal(read, picture)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "g.png"), ("1", "b.png"), ("P", "p.png"), ("CMYK", "c.jpg"), ("LA", "la.png")],
)
def test_load_image_converts_modes_to_rgb(
    tmp_path: Path, picture: Image.Image, mode: str, name: str
) -> None:
    source = picture.convert("L").convert(mode) if mode == "LA" else picture.convert(mode)
    read = load_image(saved(tmp_path, source, name))
    assert (read.mode, read.size) == ("RGB", picture.size)
    assert np.asarray(read).std() > 5


def test_load_image_composes_transparency_on_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    rgba.putpixel((1, 1), (255, 0, 0, 255))
    read = load_image(saved(tmp_path, rgba, "t.png"))
    assert read.getpixel((0, 0)) == (255, 255, 255)
    assert read.getpixel((1, 1)) == (255, 0, 0)


def test_load_image_scales_sixteen_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    read = np.asarray(load_image(saved(tmp_path, Image.fromarray(values), "s.png")))
    assert np.array_equal(read[..., 0], (values / 65535.0 * 255).round().astype(np.uint8))
    dark = np.full((4, 4), 200, dtype=np.uint16)
    assert np.asarray(load_image(saved(tmp_path, Image.fromarray(dark), "d.png"))).max() == 1
    assert np.asarray(load_image(dark)).max() == 1


def test_load_image_keeps_frame_of_pil_image(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], "b.gif", save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        image.seek(1)
        assert load_image(image).getpixel((2, 2))[2] > 200
        assert image.tell() == 1


def test_load_image_divides_premultiplied_alpha() -> None:
    read = load_image(Image.new("RGBA", (3, 3), (255, 0, 0, 128)).convert("RGBa"))
    assert read.getpixel((0, 0))[0] > 250


def test_load_image_rejects_invalid_path(tmp_path: Path, picture: Image.Image) -> None:
    file = saved(tmp_path, picture, "f.png")
    for path in (file / "x", "a\0b"):
        with pytest.raises(ImageError, match="is no path to a file"):
            load_image(path)


def test_load_image_applies_exif_orientation(tmp_path: Path, picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    read = load_image(saved(tmp_path, picture, "r.jpg", exif=exif))
    assert read.size == (picture.height, picture.width)


def test_load_image_reads_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    red, green, blue = load_image(path).getpixel((2, 2))
    assert red > 200
    assert max(green, blue) < 50


@pytest.mark.parametrize("size", [(1, 1), (8000, 20)])
def test_load_image_extreme_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    assert load_image(saved(tmp_path, Image.new("RGB", size), "e.png")).size == size


def test_load_image_arrays() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    for array in (grey, grey[..., None], np.stack([grey] * 3, -1)):
        read = np.asarray(load_image(array))
        assert np.array_equal(read, np.stack([grey] * 3, -1))
    assert np.array_equal(np.asarray(load_image(grey / 255.0))[..., 1], grey)
    assert np.array_equal(np.asarray(load_image(grey.astype(np.uint16) * 257))[..., 1], grey)
    rgba = np.dstack([np.stack([grey] * 3, -1), np.full_like(grey, 255)])
    assert np.array_equal(np.asarray(load_image(rgba))[..., 0], grey)


def test_load_image_rejects_bad_files_by_name(tmp_path: Path, picture: Image.Image) -> None:
    whole = saved(tmp_path, picture, "whole.jpg").read_bytes()
    cases = {
        "text.png": (b"not an image", "is not an image"),
        "empty.png": (b"", "is empty (0 bytes)"),
        "cut.jpg": (whole[: len(whole) // 2], "damaged or truncated"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / name)
        assert name in str(caught.value)
        assert words in str(caught.value)
    with pytest.raises(ImageError, match="does not exist"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)


def test_load_image_bytes_equal_file(tmp_path: Path, picture: Image.Image) -> None:
    path = saved(tmp_path, picture, "a.png")
    content = path.read_bytes()
    for value in (content, bytearray(content), memoryview(content)):
        assert load_image(value).tobytes() == load_image(path).tobytes()
    for value, words in ((b"", "the file is empty"), (content[:60], "the file is ")):
        with pytest.raises(ImageError, match=words):
            load_image(value)
    with pytest.raises(ImageError, match=r"the file has .* above the limit of 10;"):
        load_image(content, max_pixels=10)


def test_load_image_rejects_truncated_png(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), "n.png")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ImageError, match="damaged or truncated"):
        load_image(path)


def test_load_image_rejects_too_many_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("1", (400, 300)), "big.png")
    with pytest.raises(ImageError, match="above the limit of 100,000"):
        load_image(path, max_pixels=100_000)


def test_load_image_rejects_decompression_bomb(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("1", (20_000, 20_000)), "bomb.png")
    with pytest.raises(ImageError, match="pixels"):
        load_image(path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 4, 5)), "is not an image"),
        (np.zeros((0, 4, 3)), "is not an image"),
        (np.full((2, 2, 3), np.nan), "NaN or infinite"),
        (np.full((2, 2, 3), 2.0), "must hold 0 to 1"),
        (np.zeros((2, 2, 3), dtype=np.int64), "int64 is not an image"),
    ],
)
def test_load_image_rejects_bad_arrays(array: np.ndarray, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(array)
    assert words in str(caught.value)


def test_load_image_rejects_other_types() -> None:
    with pytest.raises(ImageError, match="cannot read an image from dict"):
        load_image({})
