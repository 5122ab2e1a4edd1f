"""Matching a data set's class names to a model's classes."""

from __future__ import annotations

import pytest
from timm.data import ImageNetInfo
from torchvision.models import ViT_B_16_Weights

from gradtoken.bench.matching import SENSES, Matcher
from gradtoken.datasets.scenes.sprites import concepts
from gradtoken.datasets.voc import CLASSES as VOC
from gradtoken.targets.labels import Labels
from tests.datasets.coco_names import COCO


def imagenet(subset: str) -> Labels:
    info = ImageNetInfo(subset)
    return Labels([info.index_to_description(i) for i in range(info.num_classes())])


LISTS = {
    "timm, transformers": imagenet("imagenet-1k"),
    "torchvision": Labels(ViT_B_16_Weights.DEFAULT.meta["categories"]),
}
RIGHT = {
    "traffic light": 920,
    "parking meter": 704,
    "zebra": 340,
    "backpack": 414,
    "umbrella": 879,
    "cup": 968,
    "banana": 954,
    "orange": 950,
    "broccoli": 937,
    "pizza": 963,
    "dining table": 532,
    "laptop": 620,
    "mouse": 673,
    "microwave": 651,
    "toaster": 859,
    "refrigerator": 760,
    "vase": 883,
}
"""COCO's categories and the classes of ImageNet that are the same things, by looking at both."""
BY_SYNONYM = {"hot dog": 934, "remote": 761, "teddy bear": 850, "hair drier": 589}


@pytest.mark.parametrize("kind", LISTS)
def test_matcher_coco_names_on_imagenet(kind: str) -> None:
    matcher = Matcher(LISTS[kind], COCO)
    matches = {name: matcher.find(name) for name in COCO}
    synonyms = BY_SYNONYM if kind != "torchvision" else {}
    assert {n: i for n, i in matches.items() if i is not None} == {**RIGHT, **synonyms}
    assert list(matcher.unclear) == ["kite"]
    assert "the data set means a toy on a line" in matcher.unclear["kite"]
    assert "the model's 'kite' can be" in matcher.unclear["kite"]


@pytest.mark.parametrize("kind", LISTS)
def test_matcher_voc_and_scene_names_on_imagenet(kind: str) -> None:
    matcher = Matcher(LISTS[kind], VOC)
    assert [name for name in VOC if matcher.find(name) is not None] == []
    matcher = Matcher(LISTS[kind], concepts())
    assert matcher.find("bell") is None
    assert matcher.find("strawberry") == 949


WRONG = {"cake": "patty", "kite": "kite", "motorbike": "minibike", "toilet": "toilet, lavatory"}
"""Names that a single class of the larger ImageNets has, with another meaning."""


@pytest.mark.parametrize("subset", ["imagenet-12k", "imagenet-21k", "imagenet-22k"])
def test_matcher_rejects_homonyms_in_larger_imagenets(subset: str) -> None:
    labels = imagenet(subset)
    for name, label in WRONG.items():
        index = labels.named(name)
        assert index is None or labels[index].startswith(label)
    matcher = Matcher(labels, [*COCO, *VOC])
    assert {matcher.find(name) for name in (*WRONG, "keyboard", "mouse", "tie")} == {None}
    assert {"kite", "keyboard"} <= set(matcher.unclear)
    assert "the model has 2 classes of this name" in {*matcher.unclear.values()} or matcher.find(
        "dog"
    )


def test_matcher_accepts_all_names_of_a_model_of_the_data_set() -> None:
    matcher = Matcher(Labels(["background", *COCO]), COCO)
    assert [matcher.find(name) for name in COCO] == list(range(1, 81))
    assert not matcher.unclear
    assert Matcher(Labels(["kite", "cat"]), COCO).find("kite") is None
    assert Matcher(Labels(["mouse", "rat"]), COCO).find("mouse") is None
    assert Matcher(Labels(["computer mouse, mouse"]), COCO).find("mouse") == 0


def test_matcher_without_vocabulary_takes_names_as_they_are() -> None:
    assert Matcher(LISTS["torchvision"]).find("kite") == 21
    several = Matcher(LISTS["timm, transformers"])
    assert several.find("crane") is None
    assert several.unclear == {"crane": "the model has 2 classes of this name"}
    assert several.find("KITE") == 21
    assert several.find("3") is None


def test_senses_are_names_of_data_sets() -> None:
    assert set(SENSES) <= {*COCO, *VOC, *concepts()}
