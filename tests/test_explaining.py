"""`explain` on everything a user may pass, and what the result holds."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import ImageError, MethodError, ModelError
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit


def test_shapes_and_contents(model: Model, batch: Tensor) -> None:
    found = gradtoken.explain(model, batch, [3, gradtoken.contrast(1, 2)])
    assert found.tokens.shape == (2, 2, 8, 8)
    assert found.relevance.shape == (2, 2, 64, 64)
    assert found.labels == [["class 3", "class 1 vs class 2"]] * 2
    logits = model(batch)
    torch.testing.assert_close(
        found.scores, torch.stack([logits[:, 3], logits[:, 1] - logits[:, 2]], 1)
    )
    torch.testing.assert_close(found.probabilities[:, 0], logits.softmax(-1)[:, 3])
    assert found.probabilities[:, 1].isnan().all()
    assert (found.tokens < 0).any()
    assert (found.tokens > 0).any()


def test_pictures_of_all_kinds_give_the_same(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "p.png"
    picture.save(path)
    expected = gradtoken.explain(model, picture, 1)
    for given in (path, str(path), np.asarray(picture), [picture], model.preprocess(picture)):
        assert torch.equal(gradtoken.explain(model, given, 1).tokens, expected.tokens)
    mixed = gradtoken.explain(model, [path, picture, model.preprocess(picture)], 1)
    torch.testing.assert_close(mixed.tokens, expected.tokens.expand(3, -1, -1, -1))


def test_a_batch_is_its_images_one_by_one(model: Model, batch: Tensor) -> None:
    together = gradtoken.explain(model, batch, [[1, 2], [3, 4]])
    for index, targets in enumerate([[1, 2], [3, 4]]):
        alone = gradtoken.explain(model, batch[index], targets)
        torch.testing.assert_close(together[index].tokens, alone.tokens)
        assert together[index].labels == alone.labels
    assert len(list(together)) == 2
    assert torch.equal(together[-1].tokens, together[1].tokens)
    with pytest.raises(IndexError):
        together[2]


def test_relevance_lies_on_the_part_the_model_saw(model: Model, picture: Image.Image) -> None:
    found = gradtoken.explain(model, picture, 1)
    box = found.boxes[0]
    assert found.relevance.shape == (1, 1, picture.height, picture.width)
    unseen = round(box.left) - 1
    assert unseen > 5
    assert found.relevance[..., :unseen].abs().max() == 0
    assert found.relevance[..., picture.width // 2].abs().max() > 0


def test_pictures_of_different_sizes(model: Model, picture: Image.Image) -> None:
    found = gradtoken.explain(model, [picture, picture.resize((50, 80))], 1)
    with pytest.raises(ImageError, match=r"2 different sizes.*explanation\[i\]"):
        _ = found.relevance
    assert found[1].relevance.shape == (1, 1, 80, 50)


def test_extreme_pictures(model: Model) -> None:
    for size in ((1, 1), (8000, 20)):
        found = gradtoken.explain(model, Image.new("RGB", size, "red"), 1)
        assert found.relevance.shape == (1, 1, size[1], size[0])
        assert max(found.overlay().size) <= 1024


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "list of pictures is empty"),
        (None, "cannot read a picture from NoneType"),
        (torch.zeros(0, 3, 64, 64), "batch is empty"),
        (torch.zeros(1, 4, 64, 64), "not a preprocessed batch"),
        (torch.full((1, 3, 64, 64), torch.nan), "NaN or infinite"),
        ("missing.png", "does not exist"),
        ([torch.zeros(3, 64, 64), torch.zeros(3, 32, 32)], "different shapes"),
    ],
)
def test_bad_images_are_refused(model: Model, images: object, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        gradtoken.explain(model, images, 1)
    assert words in str(caught.value)


def test_inputs_of_the_wrong_size_are_refused(model: Model) -> None:
    with pytest.raises(ModelError, match=r"cannot run on a batch of shape \(1, 3, 32, 32\)"):
        gradtoken.explain(model, torch.zeros(1, 3, 32, 32), 1)


def test_methods_by_name_and_made(model: Model, batch: Tensor) -> None:
    by_name = gradtoken.explain(model, batch, 1, method="gradtoken", beta=1.0)
    made = gradtoken.explain(model, batch, 1, method=make_method("gradtoken", beta=1.0))
    assert torch.equal(by_name.tokens, made.tokens)
    assert set(gradtoken.methods()) >= {"gradtoken", "raw-attention", "rollout"}
    with pytest.raises(
        MethodError, match="no method is named 'gradtokn'; did you mean 'gradtoken'"
    ):
        gradtoken.explain(model, batch, 1, method="gradtokn")
    with pytest.raises(MethodError, match="rollout has no option 'beta'; it has none"):
        gradtoken.explain(model, batch, 1, method="rollout", beta=1.0)
    kind = gradtoken.methods()["rollout"]
    assert gradtoken.explain(model, batch, 1, method=kind).about["method"]["name"] == "rollout"
    with pytest.raises(MethodError, match="no method is named None"):
        gradtoken.explain(model, batch, 1, method=None)
    with pytest.raises(MethodError, match="options go with a method's name"):
        gradtoken.explain(model, batch, 1, method=make_method("rollout"), beta=1.0)


def test_relevance_that_is_not_finite_is_refused(model: Model, batch: Tensor) -> None:
    with pytest.raises(MethodError, match="NaN or infinite relevance"):
        gradtoken.explain(model, batch, lambda logits: logits[0] * torch.nan)


@pytest.mark.parametrize("name", ["cash$_$.png", "bad\udcff.png"])
def test_any_file_name(model: Model, picture: Image.Image, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    try:
        picture.save(path, format="PNG")
    except (OSError, UnicodeError):
        pytest.skip("this file system does not take the name")
    gradtoken.explain(model, path, 1).save(tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").exists()


def test_models_can_be_copied_and_sent_to_other_processes(batch: Tensor) -> None:
    model = gradtoken.wrap(tiny_vit())
    expected = gradtoken.explain(model, batch, 1).tokens
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(gradtoken.explain(other, batch, 1).tokens, expected)


def test_a_module_instead_of_a_model_is_refused(batch: Tensor) -> None:
    with pytest.raises(ModelError, match=r"needs a Model, it got VisionTransformer.*wrap"):
        gradtoken.explain(tiny_vit(), batch)


def test_dynamic_image_sizes() -> None:
    model = gradtoken.wrap(tiny_vit(dynamic_img_size=True))
    found = gradtoken.explain(model, images_for((48, 96)), [1, 2])
    assert found.tokens.shape == (2, 2, 6, 12)


def test_overlays_and_figures(model: Model, picture: Image.Image) -> None:
    found = gradtoken.explain(model, [picture, picture], [1, 2])
    assert found.overlay().size == picture.size
    assert found.overlay("class 2") == found.overlay(1)
    assert found.overlay(0) != found.overlay(1)
    signed = found.overlay(0, style=gradtoken.Style(signed=True))
    assert signed != found.overlay(0)
    hidden = np.asarray(found.overlay(0, style=gradtoken.Style(threshold=0.999)))
    shown = np.asarray(found.overlay(0))
    assert (hidden != shown).any()
    assert len(found.figure(colorbar=False).axes) == 6
    assert found._repr_png_().startswith(b"\x89PNG")
    assert 'alt="Relevance maps for class 1, class 2"' in found._repr_html_()
    for wrong in (2, "class 9"):
        with pytest.raises(gradtoken.TargetError):
            found.overlay(wrong)


def test_large_pictures_are_drawn_smaller(model: Model) -> None:
    found = gradtoken.explain(model, Image.new("RGB", (3000, 1500), "gray"), 1)
    assert found.overlay().size == (1024, 512)


def test_save_writes_everything_a_run_needs_to_be_redone(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "p.png"
    picture.save(path)
    found = gradtoken.explain(model, path, [1, gradtoken.contrast(2, 3)], beta=0.7)
    assert found.save(tmp_path / "out") == [tmp_path / "out"]
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [
        "00_class-1.png",
        "01_class-2-vs-class-3.png",
        "manifest.json",
        "summary.png",
        "tokens.npz",
    ]
    with np.load(tmp_path / "out" / "tokens.npz") as saved:
        assert np.array_equal(saved["tokens"], found.tokens[0].numpy())
        assert list(saved["labels"]) == found.labels[0]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["method"]["options"]["beta"] == 0.7
    assert manifest["model"]["spec"] == "VisionTransformer"
    assert torch.__version__.startswith(manifest["versions"]["torch"])
    assert manifest["targets"][0] == {
        "kind": "logit",
        "id": 1,
        "label": "class 1",
        "score": float(found.scores[0, 0]),
        "probability": float(found.probabilities[0, 0]),
        "evidence": found.evidence[0, 0].to_dict(),
    }
    assert manifest["targets"][1]["probability"] is None
    assert manifest["input"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    again = gradtoken.explain(
        model,
        manifest["input"]["file"],
        manifest["targets"][0]["id"],
        method=manifest["method"]["name"],
        **manifest["method"]["options"],
    )
    assert torch.equal(again.tokens[:, 0], found.tokens[:, 0])


def test_saving_again_leaves_no_overlay_of_the_earlier_run(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    (tmp_path / "mine.png").write_text("not ours")
    gradtoken.explain(model, picture, [1, 2]).save(tmp_path)
    gradtoken.explain(model, picture, 3).save(tmp_path)
    found = sorted(path.name for path in tmp_path.glob("*.png"))
    assert found == ["00_class-3.png", "mine.png", "summary.png"]


def test_the_manifest_knows_the_file_as_it_was_read(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "p.png"
    picture.save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = gradtoken.explain(model, path, 1)
    path.unlink()
    assert found.to_dict()[0]["input"]["sha256"] == digest
    found.save(tmp_path / "out")


def test_several_images_get_a_folder_each(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    for name in ("p.png", "b/p.png"):
        picture.save(tmp_path / name)
    found = gradtoken.explain(model, [tmp_path / "p.png", tmp_path / "b" / "p.png", picture], 1)
    folders = found.save(tmp_path / "out")
    assert [f.name for f in folders] == ["p", "p-2", "image-0002"]
    assert all((f / "manifest.json").exists() for f in folders)


def test_saving_leaves_nothing_half_written(
    model: Model, picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = gradtoken.explain(model, picture, 1)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gradtoken.explanation.saving.np.savez_compressed", full_disk)
    with pytest.raises(gradtoken.OutputError, match="No space left on device"):
        found.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(gradtoken.OutputError, match="No space left on device"):
        found.save(tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_saving_below_a_file_is_refused(model: Model, picture: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(gradtoken.OutputError, match="cannot write to"):
        gradtoken.explain(model, picture, 1).save(tmp_path / "taken" / "out")


def test_names_of_files_are_safe() -> None:
    from gradtoken.explanation.saving import safe_name, unique_names

    assert safe_name("../../etc/passwd") == "etc-passwd"
    assert safe_name("tabby, tabby cat") == "tabby"
    assert safe_name("...") == "target"
    assert len(safe_name("x" * 300)) == 60
    assert unique_names(["a", "A", "a"]) == ["a", "A-2", "a-3"]
