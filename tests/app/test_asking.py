"""Asking is explaining, with parts that make other layers without a forward."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import gradtoken
from gradtoken.app import asking
from gradtoken.app.pictures import scene_source
from gradtoken.errors import MethodError, ModelError
from gradtoken.models import Model
from gradtoken.targets import contrast, text
from tests.conftest import tiny_vit
from tests.models.zoo import ZOO, seeded

WANTED = (3, 7, contrast(3, 7))


@pytest.mark.parametrize("blocks", [(1, 6), (2, 4), (6, 6), (5, 3), (0, 99), (9, 12)])
def test_of_blocks_equals_explain_with_layers(demo: Model, blocks: tuple[int, int]) -> None:
    source = scene_source(0)
    asked = asking.ask(demo, source, WANTED)
    assert asked.blocks == 6
    found = asked.of_blocks(*blocks)
    low, high = (min(max(one, 1), 6) for one in sorted(blocks))
    layers = list(range(low - 1, high))
    expected = gradtoken.explain(demo, source.image, list(WANTED), layers=layers)
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=1e-4, atol=1e-6)
    options = found.about["method"]["options"]
    assert options == {**expected.about["method"]["options"], "layers": options["layers"]}
    assert options["layers"] == ("all" if len(layers) == 6 else layers)
    assert found.sources == [source]


def test_ask_needs_one_forward_for_all_blocks(demo: Model) -> None:
    calls: list[int] = []
    handle = demo.module.register_forward_hook(lambda *_: calls.append(1))
    asked = asking.ask(demo, scene_source(1), WANTED)
    for first in range(1, 7):
        asked.of_blocks(first, 6)
    handle.remove()
    assert len(calls) == 1


def test_ask_windowed_model_has_no_blocks() -> None:
    swin = gradtoken.load("timm/swin_tiny_patch4_window7_224", pretrained=False, device="cpu")
    asked = asking.ask(swin, scene_source(0), [1])
    assert asked.blocks == 0
    assert asked.of_blocks(2, 3) is asked.explanation
    assert asking.count_blocks(swin, scene_source(0)) == 0


def test_probabilities_of_classes_equal_explain(demo: Model) -> None:
    found = asking.probabilities(demo, scene_source(0))
    expected = gradtoken.explain(demo, scene_source(0).image, "all").probabilities[0]
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-6)


def test_probabilities_use_the_activation() -> None:
    model = gradtoken.load("demo", device="cpu", activation="sigmoid")
    source = scene_source(0)
    logits = model(model.preprocess(source.image)[None])[0]
    torch.testing.assert_close(torch.tensor(asking.probabilities(model, source)), logits.sigmoid())


def test_probabilities_of_prompts_equal_explain() -> None:
    clip = gradtoken.wrap(seeded(ZOO["open_clip ViT"].build))
    source = scene_source(0)
    prompts = ("a cat", "a dog", "a boat")
    assert asking.probabilities(clip, source) == ()
    found = asking.probabilities(clip, source, prompts)
    expected = gradtoken.explain(clip, source.image, text(*prompts)).probabilities[0]
    torch.testing.assert_close(torch.tensor(found).double(), expected, rtol=1e-4, atol=1e-6)
    assert asking.count_blocks(clip, source) > 0


def test_compare_equals_explain(demo: Model) -> None:
    found = asking.compare(demo, scene_source(0), [3, 7], ["gae", "rollout"])
    for name, result in found.items():
        expected = gradtoken.explain(demo, scene_source(0).image, [3, 7], method=name)
        torch.testing.assert_close(result.tokens, expected.tokens.cpu())
    assert torch.equal(found["rollout"].tokens[0, 0], found["rollout"].tokens[0, 1])
    with pytest.raises(MethodError, match="'rise' is not among the methods to compare"):
        asking.compare(demo, scene_source(0), [3], ["rise"])


def test_compare_reports_unsupported_methods() -> None:
    swin = gradtoken.load("timm/swin_tiny_patch4_window7_224", pretrained=False, device="cpu")
    found = asking.compare(swin, scene_source(0), [3], ["gradtoken", "gae"])
    assert isinstance(found["gradtoken"], gradtoken.Explanation)
    assert "gae needs the attention between all" in str(found["gae"])


def test_compare_all_methods_on_demo(demo: Model) -> None:
    found = asking.compare(demo, scene_source(0), [3, 7], asking.METHODS)
    assert all(isinstance(result, gradtoken.Explanation) for result in found.values()), found


def test_count_blocks_rejects_model_with_nan_logits(picture: Image.Image) -> None:
    module = tiny_vit()
    with torch.no_grad():
        module.head.weight.fill_(float("nan"))
    broken = gradtoken.wrap(module)
    with pytest.raises(ModelError, match=r"cannot be served: .* NaN or infinite logits"):
        asking.count_blocks(broken, scene_source(0))
