"""Reading a small data set in the format of COCO."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from gradtoken.datasets import COCO
from gradtoken.datasets.coco import open_coco
from gradtoken.errors import DatasetError
from tests.datasets.files import write_coco


def test_coco_one_mask_per_category(tmp_path: Path) -> None:
    data_set = COCO(write_coco(tmp_path))
    assert [sample.id for sample in data_set] == ["000000000009", "000000000025"]
    sample = data_set[0]
    assert sample.names == ("person", "cat")
    assert sample.masks[1, 1:4, 1:5].all()
    assert sample.masks[1, 1:4, 7:10].all()
    assert sample.masks[1].sum() == 12 + 9
    assert sample.ignore[6:].all()
    assert sample.ignore.sum() == 24
    assert sample.masks[0].sum() == 3
    assert not (sample.masks & sample.ignore).any()
    assert data_set[1].masks.shape == (0, 8, 12)


def test_coco_one_mask_per_instance_after_pickling(tmp_path: Path) -> None:
    data_set = pickle.loads(pickle.dumps(COCO(write_coco(tmp_path), instances=True)))
    assert data_set[0].names == ("cat", "cat", "person")


def test_coco_names_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no COCO folder at"):
        COCO(tmp_path / "none")
    root = write_coco(tmp_path)
    with pytest.raises(DatasetError, match=r"no list of instances at .*instances_train2017\.json"):
        COCO(root, "train2017")
    (root / "val2017" / "000000000009.jpg").unlink()
    with pytest.raises(DatasetError, match=r"000000000009\.jpg is missing"):
        COCO(root)[0]
    (root / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(DatasetError, match="is no list of COCO instances"):
        COCO(root)


def moved(root: Path, images: str, annotations: str) -> str:
    """The data set's two parts in other places, as `coco:` names them."""
    write_coco(root / "made")
    for part, place in (("val2017", images), ("annotations/instances_val2017.json", annotations)):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / "made" / part).rename(root / place)
    return f"{root / images},{root / annotations}"


@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ("photos", "list.json"),
        ("my photos/of 2017", "other place/my list.json"),
        ("a,b", "c,d.json"),
        ("deep/er, still", "deep/er, still.json"),
        ("photos", "no suffix"),
    ],
)
def test_coco_in_any_folders(tmp_path: Path, images: str, annotations: str) -> None:
    data_set = open_coco(moved(tmp_path, images, annotations))
    assert [sample.id for sample in data_set] == ["000000000009", "000000000025"]
    assert data_set[0].names == ("person", "cat")
    assert data_set[0].masks[1].sum() == 12 + 9


def test_coco_with_spaces_around_the_comma(tmp_path: Path) -> None:
    images, annotations = moved(tmp_path, "photos", "list.json").split(",")
    assert len(open_coco(f" {images} , {annotations} ")) == 2


def test_coco_in_a_folder_with_commas(tmp_path: Path) -> None:
    assert len(open_coco(str(write_coco(tmp_path / "a,b, c")))) == 2


def test_coco_in_subfolders_of_the_images(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    listed = root / "annotations/instances_val2017.json"
    listed.write_text(listed.read_text().replace('"0000', '"val2017/0000'))
    data_set = COCO(root, annotations=listed)
    assert data_set[0].id == "val2017/000000000009"


def test_coco_names_missing_parts(tmp_path: Path) -> None:
    text = moved(tmp_path, "photos", "list.json")
    images, annotations = text.split(",")
    for wrong, words in (
        (f"{images}x,{annotations}", r"there is no folder of images at '.*photosx'; give the"),
        (f"{images},{annotations}x", r"there is no list of instances at '.*jsonx'; give"),
        (f"{images}x,{annotations}x", r"no folder of images at .* and no list of instances at"),
        (f"{images}/none", "there is no COCO folder at .*none"),
        (f"{images},", "no list of instances at ''"),
        (f"{annotations},{images}", "list of COCO instances"),
    ):
        with pytest.raises(DatasetError, match=words):
            open_coco(wrong)
    empty = tmp_path / "empty.json"
    empty.write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DatasetError, match="lists no image"):
        open_coco(f"{images},{empty}")


def test_coco_rejects_ambiguous_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "a,b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "b,c").write_text("{}")
    with pytest.raises(DatasetError, match="b,c lists no image"):
        open_coco("a,b,c")
    (tmp_path / "c").write_text("{}")
    with pytest.raises(DatasetError, match="coco:a,b,c can be split at several commas; rename"):
        open_coco("a,b,c")
