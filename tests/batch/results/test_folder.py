"""The folder of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradtoken.batch.results.folder import Folder
from gradtoken.errors import OutputError
from tests.batch.conftest import start


def test_lock_rejects_second_run(folder: Path, tmp_path: Path) -> None:
    with (
        Folder(str(tmp_path / "out")).locked(),
        pytest.raises(OutputError, match="another run is writing"),
    ):
        start(folder, tmp_path / "out")
