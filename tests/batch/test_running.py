"""Runs and how they are resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gradtoken
from gradtoken.batch import Source, TargetSpec
from gradtoken.batch.results.folder import Folder
from gradtoken.errors import DatasetError, ModelError, OutputError
from tests.batch.conftest import COUNT, JOB, shards, start


def test_resume_rejects_another_activation(folder: Path, tmp_path: Path) -> None:
    start(folder, tmp_path / "out")
    with pytest.raises(OutputError, match='activation was "softmax" and is "sigmoid"'):
        start(folder, tmp_path / "out", job=replace(JOB, activation="sigmoid"), resume=True)
    start(folder, tmp_path / "out", job=replace(JOB, activation="softmax"), resume=True)
    with pytest.raises(ModelError, match="activation is 'tanh'"):
        start(folder, tmp_path / "new", job=replace(JOB, activation="tanh"))


def test_resume_after_full_disk_gives_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(folder, tmp_path / "whole")
    out, write = tmp_path / "out", Folder.write

    def full(self: Folder, name: str, content: bytes) -> None:
        if name.endswith("1.parquet") and name.startswith("data"):
            raise OutputError("cannot write: No space left on device.")
        write(self, name, content)

    monkeypatch.setattr(Folder, "write", full)
    with pytest.raises(OutputError, match="No space left"):
        start(folder, out, decoders=1)
    monkeypatch.setattr(Folder, "write", write)
    assert list(shards(out)) == ["00000000.parquet"]
    before = (out / "data" / "00000000.parquet").stat().st_mtime_ns
    summary = start(folder, out, resume=True)
    assert (summary.resumed, summary.before, summary.rows) == (1, 4, 2 * (COUNT - 1) + 1)
    assert (out / "data" / "00000000.parquet").stat().st_mtime_ns == before
    assert shards(out) == shards(tmp_path / "whole")


def test_resume_repairs_what_a_kill_leaves(folder: Path, tmp_path: Path) -> None:
    """Half-written files, a shard that is not noted, a note whose shard is gone or cut."""
    start(folder, tmp_path / "whole")
    out = tmp_path / "out"
    start(folder, out)
    (out / "data" / ".part-00000001.parquet").write_bytes(b"half")
    (out / "data" / "00000000.parquet").unlink()
    with (out / "data" / "00000001.parquet").open("r+b") as file:
        file.truncate(100)
    journal = next((out / "done").iterdir())
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:2]) + '{"shard": 2,')
    start(folder, out, resume=True)
    assert shards(out) == shards(tmp_path / "whole")


def test_resume_rejects_other_settings_sources_and_folders(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    start(folder, out)
    before = shards(out)
    with pytest.raises(OutputError, match="holds a run already; pass --resume"):
        start(folder, out)
    with pytest.raises(OutputError, match="shard_size was 4 and is 5"):
        start(folder, out, resume=True, shard_size=5)
    with pytest.raises(OutputError, match=r'targets was \{"top_k": 2\} and is \{"classes": "all"'):
        start(folder, out, resume=True, job=replace(JOB, targets=TargetSpec.parse("all")))
    with pytest.raises(OutputError, match="options was"):
        start(folder, out, resume=True, job=replace(JOB, options={"beta": 0.25}))
    (folder / "000.png").touch()
    with pytest.raises(DatasetError, match=r"the source has changed.*000\.png is another file"):
        start(folder, out, resume=True)
    (folder / "000.png").unlink()
    with pytest.raises(DatasetError, match=r"the source has changed since the run began"):
        start(folder, out, resume=True)
    assert shards(out) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="something else than a run"):
        start(folder, tmp_path / "other", resume=True)
    (out / "manifest.json").write_text("[1, 2")
    with pytest.raises(OutputError, match=r"manifest\.json is damaged"):
        start(folder, out, resume=True)


def test_resume_rejects_other_weights(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    name = "timm/vit_tiny_patch16_224"
    state = gradtoken.load(name, pretrained=False).module.state_dict()
    weights = tmp_path / "w.safetensors"
    save_file(state, weights)
    job = replace(JOB, model=name, checkpoint=str(weights))
    source = f"{folder}/{{000..001}}.png"
    start(source, tmp_path / "out", job=job)
    state["head.bias"] = state["head.bias"] + 1
    save_file(state, weights)
    with pytest.raises(OutputError, match="weights was"):
        start(source, tmp_path / "out", job=job, resume=True)


def test_run_writes_no_source_options_and_restores_threads(folder: Path, tmp_path: Path) -> None:
    source, threads = Source(str(folder), options={"secret": "hunter2"}), torch.get_num_threads()
    start(source, tmp_path / "out", job=replace(JOB, threads=threads + 1), threads=threads + 1)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert settings["threads"] == threads + 1
    assert torch.get_num_threads() == threads, "the caller's threads are changed"
