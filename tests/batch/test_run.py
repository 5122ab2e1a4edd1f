"""A run's rows, its errors, and going on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import gradtoken
from gradtoken.batch import Asked, Columns, Source
from gradtoken.batch.results.folder import Folder
from gradtoken.errors import DatasetError, GradTokenError, ModelError, OutputError, TargetError
from tests.batch.conftest import COUNT, JOB, shards, start, write_parquet


def test_rows_are_what_explain_gives(folder: Path, tmp_path: Path) -> None:
    summary = start(folder, tmp_path / "out")
    assert (summary.pictures, summary.errors, summary.shards) == (COUNT, 1, 3)
    assert summary.rows == 2 * (COUNT - 1) + 1
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert [row["index"] for row in rows] == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        *np.repeat(range(5, 10), 2),
    ]
    model = gradtoken.load("demo")
    for row in rows[-2:]:
        assert row["id"] == "b/009.png"
        path = folder / "b" / "009.png"
        assert row["source"] == str(path)
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (row["width"], row["height"]) == (112, 112)
        one = gradtoken.explain(model, path, row["target_id"])
        assert row["target_name"] == one.labels[0][0]
        assert row["logit"] == pytest.approx(float(one.scores[0, 0]), rel=1e-4)
        assert row["probability"] == pytest.approx(float(one.probabilities[0, 0]), rel=1e-4)
        tokens = np.array(row["relevance"], np.float32).reshape(14, 14) * row["scale"]
        expected = one.tokens[0, 0].cpu().numpy()
        np.testing.assert_allclose(tokens, expected, atol=2e-3 * np.abs(expected).max())
        assert len(row["fingerprint"]) == 16
    bad = rows[8]
    assert bad["error"] == (
        "the file is not a picture in a format Pillow reads (PNG, JPEG, WebP, TIFF, GIF, …)."
    )
    assert bad["relevance"] is bad["logit"] is bad["width"] is None
    schema = pq.read_schema(tmp_path / "out" / "data" / "00000000.parquet")
    assert str(schema.field("relevance").type) == "list<element: halffloat>"


def test_bytes_do_not_depend_on_when_or_where(folder: Path, tmp_path: Path) -> None:
    start(folder, tmp_path / "a")
    start(folder, tmp_path / "b", decoders=3)
    assert shards(tmp_path / "a") == shards(tmp_path / "b")


def test_an_interrupted_run_goes_on_to_the_same_bytes(
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


def test_what_a_kill_can_leave_is_made_again(folder: Path, tmp_path: Path) -> None:
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


def test_other_settings_sources_and_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    start(folder, out)
    before = shards(out)
    with pytest.raises(OutputError, match="holds a run already; pass --resume"):
        start(folder, out)
    with pytest.raises(OutputError, match="shard_size was 4 and is 5"):
        start(folder, out, resume=True, shard_size=5)
    with pytest.raises(OutputError, match=r'targets was \{"top_k": 2\} and is \{"classes": "all"'):
        start(folder, out, resume=True, job=replace(JOB, targets=Asked.parse("all")))
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


def test_weights_are_part_of_a_run(folder: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("value", ["1", 1.5, None, -1, True, [2]])
def test_odd_notes_are_not_believed(folder: Path, tmp_path: Path, value: object) -> None:
    out = tmp_path / "out"
    start(folder, out)
    before = shards(out)
    journal = next((out / "done").iterdir())
    notes = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("".join(json.dumps({**note, "rows": value}) + "\n" for note in notes))
    assert start(folder, out, resume=True).resumed == 0
    assert shards(out) == before


def test_a_damaged_listing_is_not_gone_on_with(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    start(folder, out)
    before = shards(out)
    (out / "data" / "00000001.parquet").unlink()
    listing = out / "listing" / "000000.parquet"
    listing.write_bytes(listing.read_bytes()[:-20])
    with pytest.raises(OutputError, match=r"000000.parquet is damaged; start the run anew"):
        start(folder, out, resume=True)
    assert shards(out) == {n: c for n, c in before.items() if n != "00000001.parquet"}


def test_two_runs_cannot_write_to_one_folder(folder: Path, tmp_path: Path) -> None:
    with (
        Folder(str(tmp_path / "out")).locked(),
        pytest.raises(OutputError, match="another run is writing"),
    ):
        start(folder, tmp_path / "out")


def test_max_errors_stops_a_run_that_can_go_on(folder: Path, tmp_path: Path) -> None:
    for name in ("005.png", "006.png"):
        (folder / name).write_bytes(b"")
    with pytest.raises(DatasetError, match=r"3 pictures could not .* more than --max-errors 1"):
        start(folder, tmp_path / "out", max_errors=1, decoders=1)
    assert start(folder, tmp_path / "out", resume=True).errors == 3


def test_a_columns_targets(tmp_path: Path, contents: list[bytes]) -> None:
    path = write_parquet(tmp_path / "p.parquet", contents)
    job = replace(JOB, targets=Asked.parse("column:label"))
    start(Source(str(path), columns=Columns(id="key")), tmp_path / "out", job=job)
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert [row["target_id"] for row in rows] == [i % 3 for i in range(10)]
    csv = tmp_path / "p.csv"
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(contents[index])
    csv.write_text('path,want\n0.png,"[""banana"", 3]"\n1.png,\n2.png,no such class\n')
    job = replace(JOB, targets=Asked.parse("column:want"))
    summary = start(csv, tmp_path / "csv", job=job)
    assert summary.errors == 2
    rows = pq.read_table(tmp_path / "csv" / "data").to_pylist()
    assert [row["target_name"] for row in rows[:2]] == [
        "banana",
        gradtoken.load("demo").labels[3],
    ]
    assert "names no target here" in rows[2]["error"]
    assert "no such class" in rows[3]["error"]


def test_ids_that_come_twice_are_refused(tmp_path: Path, contents: list[bytes]) -> None:
    path = write_parquet(tmp_path / "p.parquet", contents)
    with pytest.raises(DatasetError, match="ids are not unique: that of picture 3 came before"):
        start(Source(str(path), columns=Columns(id="label")), tmp_path / "out")


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("banan", "did you mean 'banana'"),
        ("top:0", "give a number of classes"),
        ("top:999", "top:999 is too many"),
        ("column:", "needs a name"),
        ("text:/nowhere.txt", "cannot be read"),
        (" , ", "--targets is empty"),
    ],
)
def test_bad_targets_are_refused_before_the_work(
    folder: Path, tmp_path: Path, targets: str, words: str
) -> None:
    with pytest.raises(TargetError, match=words):
        start(folder, tmp_path / "out", job=replace(JOB, targets=Asked.parse(targets)))
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["workers", "threads", "decoders", "shard_size"])
def test_a_count_of_none_is_not_the_default(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(GradTokenError, match=f"{name} is 0; it must be 1 or more"):
        start(folder, tmp_path / "out", **{name: 0})
    with pytest.raises(TargetError, match="top_k is 0; give a number of classes"):
        start(folder, tmp_path / "out", job=replace(JOB, targets=Asked(top_k=0)))


def test_a_model_that_differs_on_a_worker_is_refused() -> None:
    from gradtoken.batch.engines.worker import Explainer

    identity = JOB.identity(gradtoken.load("demo"))
    with pytest.raises(ModelError, match="another weights than the run began with"):
        Explainer(JOB, {**identity, "weights": "0"})


def test_enormous_pictures_are_refused_before_decoding(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bomb.png").write_bytes(bomb + chunk(b"IEND", b""))
    start(tmp_path / "in", tmp_path / "out")
    (row,) = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert "limit of 100,000,000" in row["error"]


def test_maps_that_lose_nothing_in_half_precision() -> None:
    from gradtoken.batch.results.schema import as_shares

    for size in (1e-12, 1.0, 1e12):
        tokens = size * np.linspace(-1, 0.5, 12, dtype=np.float32).reshape(3, 4)
        scale, shares = as_shares(tokens)
        np.testing.assert_allclose(
            shares.astype(np.float32).reshape(3, 4) * scale, tokens, atol=6e-4 * size
        )
    scale, shares = as_shares(np.zeros((2, 2), np.float32))
    assert scale == 0
    assert not shares.any()


def test_nothing_secret_is_written_down(folder: Path, tmp_path: Path) -> None:
    source, threads = Source(str(folder), options={"secret": "hunter2"}), torch.get_num_threads()
    start(source, tmp_path / "out", job=replace(JOB, threads=threads + 1), threads=threads + 1)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert settings["threads"] == threads + 1
    assert torch.get_num_threads() == threads, "the caller's threads are changed"
