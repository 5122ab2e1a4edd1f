"""Class maps: reading them, and which classes, masks and images they lead to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import gradtoken
from gradtoken.bench.cases import cases
from gradtoken.bench.class_map import ClassMap, map_objects, read_class_map
from gradtoken.bench.exclusions import Exclusions
from gradtoken.bench.run import run
from gradtoken.bench.store import Store
from gradtoken.bench.visible_objects import mask_on_input
from gradtoken.datasets.sample import Sample
from gradtoken.errors import DatasetError, ModelError, OutputError
from gradtoken.targets.labels import Labels
from tests.bench.toys import SIDE, Fixed, sample
from tests.conftest import tiny_vit

LABELS = Labels(["tabby", "tiger cat", "beagle, hound", "pug", "car"])


def written(folder: Path, content: object) -> Path:
    path = folder / "map.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_read_class_map_by_ids_and_names(tmp_path: Path) -> None:
    path = written(tmp_path, {"cat": [0, "tiger cat"], "dog": ["hound", 3, "beagle"]})
    result = read_class_map(path, LABELS, probability=0.2, area=(0, 1))
    assert result == ClassMap({"cat": (0, 1), "dog": (2, 3)}, 0.2, (0, 1))
    defaults = read_class_map(path, LABELS)
    assert (defaults.probability, defaults.area) == (0.03, (0.01, 0.6))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read: Expecting"),
        ("[1]", r"is no class map; it is to be a JSON object"),
        ({}, "is no class map"),
        ({"cat": []}, "gives 'cat' no list of classes"),
        ({"cat": 3}, "gives 'cat' no list of classes"),
        ({"cat": [5]}, "not for this model, at 'cat': class id 5 is out of range"),
        (
            {"cat": ["tigger cat"]},
            "not for this model, at 'cat': no class is named 'tigger cat'; did",
        ),
        ({"cat": [True]}, "True is no class"),
        ({"cat": [[0]]}, r"\[0\] is no class"),
        ('{"cat": [0], "dog": [2], "cat": [1]}', "it has 'cat' twice"),
    ],
)
def test_read_class_map_errors(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        read_class_map(written(tmp_path, content), LABELS)


def test_read_class_map_without_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.json cannot be read: No such file"):
        read_class_map(tmp_path / "none.json", LABELS)
    with pytest.raises(DatasetError, match="cannot be read: Is a directory"):
        read_class_map(tmp_path, LABELS)


@pytest.mark.parametrize("values", [(-0.1, (0, 1)), (0.1, (0.5, 0.5)), (0.1, (0, 1.1))])
def test_class_map_rejects_impossible_conditions(values: tuple) -> None:
    with pytest.raises(DatasetError, match="they are parts of 1"):
        ClassMap({"cat": (0,)}, *values)


def masks_of(*shares: float) -> torch.Tensor:
    """A mask of 100 x 100 pixels for each share, from the top down."""
    masks = torch.zeros(len(shares), 100, 100, dtype=torch.bool)
    for mask, share in zip(masks, shares, strict=True):
        mask.view(-1)[: round(10_000 * share)] = True
    return masks


GROUPS = ClassMap({"cat": (0, 1), "dog": (2, 3), "pet": (0, 2), "car": (4,)})


def test_map_objects_takes_likeliest_class_of_group() -> None:
    probabilities = torch.tensor([0.02, 0.015, 0.1, 0.3, 0.01])
    masks = masks_of(0.1, 0.3, 0.2, 0.4)
    masks[2] = ~masks_of(0.95)[0]
    mapped = map_objects(
        GROUPS, ["dog", "cat", "cat", "car"], masks, probabilities, independent=False
    )
    assert mapped.classes == (3, 0)
    assert torch.equal(mapped.masks[0], masks[0])
    assert torch.equal(mapped.masks[1], masks[1] | masks[2])
    assert mapped.skipped == (("car", "the model gives its classes less than 0.03"),)


def test_map_objects_merges_categories_of_one_class() -> None:
    masks = masks_of(0.1, 0.3)
    mapped = map_objects(
        GROUPS, ["dog", "pet"], masks, torch.tensor([0.0, 0, 0.9, 0, 0]), independent=False
    )
    assert mapped.classes == (2,)
    assert torch.equal(mapped.masks, masks.any(0, keepdim=True))


def test_map_objects_leaves_out_by_area() -> None:
    probabilities = torch.tensor([0.5, 0, 0.2, 0, 0.3])
    mapped = map_objects(
        GROUPS, ["cat", "dog", "car"], masks_of(0.0099, 0.61, 0.6), probabilities, independent=False
    )
    assert mapped.classes == (4,)
    assert mapped.skipped == (
        ("cat", "it covers less than 0.01 of the model's input"),
        ("dog", "it covers more than 0.6 of the model's input"),
    )


def test_map_objects_of_independent_classes() -> None:
    """A sum over sigmoids is no probability: each class stands for itself."""
    probabilities = torch.tensor([0.02, 0.02, 0.9, 0.9, 0.9])
    mapped = map_objects(GROUPS, ["cat"], None, probabilities, independent=True)
    assert (mapped.classes, mapped.masks) == ((), None)
    summed = map_objects(GROUPS, ["cat"], None, probabilities, independent=False)
    assert summed.classes == (0,)


@pytest.fixture(scope="module")
def model() -> gradtoken.Model:
    return gradtoken.wrap(tiny_vit())


class Listed(list):
    vocabulary = ("thing", "stuff", "other")


def test_cases_by_class_map(model: gradtoken.Model) -> None:
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, :20, :20], masks[1, 40:, 32:] = True, True
    image = sample("a", 0, names=("thing", "stuff"), masks=masks)
    p = model(model.preprocess(image.image)[None])[0].softmax(-1)
    order = p.argsort(descending=True).tolist()
    bare = Sample("b", image.image, ("other",), masks[:1])
    groups = {"thing": (order[3], order[1]), "stuff": (order[8], order[9]), "gone": (0,)}
    least = float(p[order[8]] + p[order[9]]) * 1.01
    assert float(p[order[1]] + p[order[3]]) > least
    exclusions = Exclusions()
    results = dict(
        cases(
            model,
            Listed([image, bare]),
            class_map=ClassMap(groups, least),
            exclusions=exclusions,
        )
    )
    assert list(results) == ["a"]
    case = results["a"]
    assert case.classes == (order[1],)
    assert case.label == order[1]
    assert case.names == (f"class {order[1]}",)
    whole = mask_on_input(masks[0], model.preprocess.box((SIDE, SIDE)), (SIDE, SIDE))
    assert torch.equal(case.masks[0], whole)
    assert [name for name, _ in case.skipped] == ["stuff"]
    assert exclusions.images == {"it shows no category of the class map": 1}
    assert exclusions.names == {"gone": "the class map names it, and the data set does not have it"}


def test_cases_count_images_by_reason(model: gradtoken.Model) -> None:
    small = np.zeros((1, SIDE, SIDE), bool)
    small[0, 30:32, 30:32] = True
    images = [
        sample("a", 0, names=("thing",), masks=small),
        sample("b", 0, names=("thing",), masks=~small),
    ]
    exclusions = Exclusions()
    found = cases(
        model, images, class_map=ClassMap({"thing": tuple(range(10))}), exclusions=exclusions
    )
    assert list(found) == []
    assert exclusions.images == {
        "its objects are left out (it covers less than 0.01 of the model's input)": 1,
        "its objects are left out (it covers more than 0.6 of the model's input)": 1,
    }


def test_cases_reject_map_of_another_data_set(model: gradtoken.Model) -> None:
    elsewhere = ClassMap({"kite": (0,)})
    with pytest.raises(DatasetError, match="no category of the class map, such as 'kite'; it has"):
        list(cases(model, Listed(), class_map=elsewhere))
    samples = [sample(f"s{i}", 0) for i in range(200)]
    with pytest.raises(DatasetError, match="none of the first 200 images shows a category of the"):
        list(cases(model, samples, class_map=elsewhere))
    regression = gradtoken.wrap(tiny_vit(), activation="none")
    with pytest.raises(ModelError, match="takes classes by their probability"):
        list(cases(regression, samples, class_map=elsewhere))


def test_run_resumes_with_the_same_class_map_alone(model: gradtoken.Model, tmp_path: Path) -> None:
    images = [sample("a", 0, names=("thing", "stuff"))]

    def go(class_map: ClassMap | None) -> list[str]:
        store = Store(tmp_path, {})
        return run(
            model, {"fixed": Fixed()}, images, ["localization"], store,
            limit=1, slow_limit=0, whole=False, class_map=class_map,
        ).images  # fmt: skip

    groups = {"thing": (1,), "stuff": (2,)}
    first = ClassMap(groups, probability=0.0)
    assert go(first) == go(first) == ["a"]
    with pytest.raises(
        OutputError, match="with other weights, methods, metrics or libraries, or another class"
    ):
        go(ClassMap({**groups, "stuff": (3,)}, probability=0.0))
    with pytest.raises(OutputError, match="was measured with other"):
        go(ClassMap(groups, probability=0.001))
