"""Reading a small file in the format of ImageNet-Segmentation."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from gradtoken.datasets import ImageNetSegmentation
from gradtoken.errors import DatasetError
from tests.datasets.files import write_imagenet_seg


def test_imagenet_seg_images_and_masks_are_upright(tmp_path: Path) -> None:
    path = tmp_path / "gtsegs_ijcv.mat"
    written = write_imagenet_seg(path)
    data_set = pickle.loads(pickle.dumps(ImageNetSegmentation(path)))
    assert len(data_set) == 2
    for sample, (pixels, mask) in zip(data_set, written, strict=True):
        assert (np.asarray(sample.image) == pixels).all()
        assert (sample.masks[0] == (mask > 0)).all()
        assert sample.unnamed
        assert sample.label is None
    assert data_set[1].id == "imagenet-seg-00001"


def test_imagenet_seg_rejects_other_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no MATLAB file at"):
        ImageNetSegmentation(tmp_path / "none.mat")
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(DatasetError, match=r"old\.mat is no HDF5 file"):
        ImageNetSegmentation(tmp_path / "old.mat")
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file.create_dataset("value/img", data=np.zeros(3))
    with pytest.raises(DatasetError, match=r"has no 'value/gt'; use gtsegs_ijcv\.mat"):
        ImageNetSegmentation(tmp_path / "other.mat")
    with h5py.File(tmp_path / "broken.mat", "w") as file:
        file.create_dataset("value/img", data=np.zeros(3))
        file.create_dataset("value/gt", data=np.zeros(3))
    with pytest.raises(DatasetError, match=r"entry 1 of .*broken\.mat cannot be read"):
        ImageNetSegmentation(tmp_path / "broken.mat")[1]


@pytest.mark.parametrize(
    ("kind", "scale"), [("u1", 1), ("u2", 257), ("f4", 1 / 255), ("f8", 1 / 255)]
)
def test_imagenet_seg_number_types(tmp_path: Path, kind: str, scale: float) -> None:
    path = tmp_path / "a.mat"
    pixels, _ = write_imagenet_seg(path)[0]
    with h5py.File(path, "r+") as file:
        made = (pixels.transpose(2, 1, 0).astype(float) * scale).astype(kind)
        file["value/img"][0, 0] = file["#refs#"].create_dataset("x", data=made).ref
    assert (np.asarray(ImageNetSegmentation(path)[0].image) == pixels).all()


def test_imagenet_seg_rejects_floats_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    write_imagenet_seg(path)
    with h5py.File(path, "r+") as file:
        made = np.full((3, 4, 4), 200.0)
        file["value/img"][0, 0] = file["#refs#"].create_dataset("x", data=made).ref
    with pytest.raises(DatasetError, match="holds floats from 200 to 200"):
        ImageNetSegmentation(path)[0]
