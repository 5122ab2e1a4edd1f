"""ImageNet-Segmentation, read from a small file of its format."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from gradtoken.datasets import ImageNetSegmentation
from gradtoken.errors import DatasetError
from tests.datasets.files import write_imagenet_seg


def test_pictures_and_masks_are_upright(tmp_path: Path) -> None:
    path = tmp_path / "gtsegs_ijcv.mat"
    written = write_imagenet_seg(path)
    found = pickle.loads(pickle.dumps(ImageNetSegmentation(path)))
    assert len(found) == 2
    for sample, (pixels, mask) in zip(found, written, strict=True):
        assert (np.asarray(sample.image) == pixels).all()
        assert (sample.masks[0] == (mask > 0)).all()
        assert sample.unnamed
        assert sample.label is None
    assert found[1].id == "imagenet-seg-00001"


def test_other_files_are_refused(tmp_path: Path) -> None:
    import h5py

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
