"""`check`, in Python and on the command line."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import gradtoken
from gradtoken.checking import WORKS, check
from gradtoken.cli.app import app
from gradtoken.errors import MethodError, ModelError
from tests.conftest import tiny_vit
from tests.models.zoo import ZOO, seeded
from tests.targets.fixed_prompts import with_prompts

run = CliRunner().invoke


OF_PROMPTS = {name for name, kind in gradtoken.methods().items() if kind.of_prompts}


def test_check_reports_layout_and_methods() -> None:
    checked = check(gradtoken.wrap(tiny_vit(reg_tokens=2)))
    assert (checked.blocks, checked.attention_calls, checked.grid, checked.prefix) == (
        4,
        4,
        (8, 8),
        3,
    )
    assert checked.readout == "class token"
    assert checked.methods == dict.fromkeys(set(gradtoken.methods()) - OF_PROMPTS, WORKS)
    assert checked.works


def test_check_of_named_methods() -> None:
    checked = check(gradtoken.wrap(tiny_vit()), ["gradtoken", "gae"])
    assert checked.methods == {"gradtoken": WORKS, "gae": WORKS}
    with pytest.raises(MethodError, match="no method is named 'gea'; did you mean 'gae'"):
        check(gradtoken.wrap(tiny_vit()), ["gradtoken", "gea"])


def test_check_rejects_blank_map() -> None:
    module = tiny_vit()
    nn.init.zeros_(module.head.weight)
    checked = check(gradtoken.wrap(module))
    assert not checked.works
    assert "blank map" in checked.methods["gradtoken"]


def test_check_of_single_logit() -> None:
    checked = check(gradtoken.wrap(tiny_vit(num_classes=1)))
    assert checked.methods == dict.fromkeys(set(gradtoken.methods()) - OF_PROMPTS, WORKS)
    assert checked.activation == "sigmoid"


@pytest.mark.slow
def test_check_command_json() -> None:
    result = run(app, ["check", "timm/vit_tiny_patch16_224", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    keys = ["works", "spec", "blocks", "attention_calls", "grid", "prefix", "readout"]
    assert list(report) == [*keys, "verified", "activation", "methods"]
    assert len(report["verified"]) == 8
    assert all(fact["value"] <= fact["allowed"] for fact in report["verified"])
    assert report["works"] is True
    assert report["grid"] == [14, 14]
    assert report["methods"]["gradtoken"] == WORKS


@pytest.mark.slow
def test_check_command_gives_reasons_for_windowed_model() -> None:
    result = run(app, ["check", "timm/swin_tiny_patch4_window7_224", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["readout"] == "mean of the last stage"
    assert "rollout needs the attention between all tokens" in report["methods"]["rollout"]


def test_check_command_table() -> None:
    result = run(app, ["check", "demo"])
    assert result.exit_code == 0, result.output
    assert "14x14, 1 other tokens" in result.stdout
    assert "gradient at tokens that the head is not said to" in result.stdout


@pytest.mark.parametrize("spec", ["timm/resnet18", "timm/convit_tiny", "timm/no_such_vit", "nil"])
def test_check_command_fails_with_reason(spec: str) -> None:
    result = run(app, ["check", spec])
    assert isinstance(result.exception, ModelError)
    assert result.exit_code == 1


def test_load_random_weights_are_reproducible() -> None:
    state = torch.get_rng_state()
    first, second = (
        gradtoken.load("timm/vit_tiny_patch16_224", pretrained=False) for _ in range(2)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.module.head.weight, second.module.head.weight)
    assert first.weights == "random"
    with pytest.raises(ModelError, match="without a weights file"):
        gradtoken.load("demo", pretrained=False)


def test_check_runs_methods_of_prompts_on_text_models() -> None:
    model = with_prompts(gradtoken.wrap(seeded(ZOO["open_clip ViT"].build)))
    checked = check(model)
    assert set(checked.methods) == set(gradtoken.methods())
    assert {checked.methods[name] for name in OF_PROMPTS} == {WORKS}
    said = check(gradtoken.wrap(tiny_vit()), ["gradtoken", "m2ib"]).methods["m2ib"]
    assert said.startswith("m2ib explains text prompts alone")
