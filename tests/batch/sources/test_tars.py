"""Images in tar files."""

from __future__ import annotations

from pathlib import Path

from tests.batch.conftest import list_source, read_contents, tar


def test_list_tar_with_targets(tmp_path: Path, contents: list[bytes]) -> None:
    for part in range(2):
        members = []
        for index in range(part * 5, part * 5 + 5):
            members.append((f"s/{index:04d}.png", contents[index]))
            members.append((f"s/{index:04d}.cls", str(index).encode()))
        tar(tmp_path / f"train-{part}.tar", members)
    for spec in (tmp_path, f"{tmp_path}/train-{{0..1}}.tar"):
        items = list_source(spec, targets="cls")
        assert [item.id for item in items][4:6] == [
            "train-0.tar/s/0004.png",
            "train-1.tar/s/0005.png",
        ]
        assert [item.targets for item in items] == [f'"{i}"' for i in range(10)]
        assert read_contents(items) == contents


def test_member_names_are_not_paths(tmp_path: Path, contents: list[bytes]) -> None:
    """Names are only names: nothing is unpacked."""
    path = tar(tmp_path / "odd.tar", [("../../up.png", contents[0]), ("/etc/a.png", contents[1])])
    items = list_source(path)
    assert [item.id for item in items] == ["odd.tar/../../up.png", "odd.tar//etc/a.png"]
    assert {item.file for item in items} == {str(path)}
    assert read_contents(items) == contents[:2]
