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

run = CliRunner().invoke


def test_what_works_and_what_does_not() -> None:
    found = check(gradtoken.wrap(tiny_vit(reg_tokens=2)))
    assert (found.blocks, found.attention_calls, found.grid, found.prefix) == (4, 4, (8, 8), 3)
    assert found.readout == "class token"
    assert found.methods == dict.fromkeys(gradtoken.methods(), WORKS)
    assert found.works


def test_some_methods_only() -> None:
    found = check(gradtoken.wrap(tiny_vit()), ["gradtoken", "gae"])
    assert found.methods == {"gradtoken": WORKS, "gae": WORKS}
    with pytest.raises(MethodError, match="no method is named 'gea'; did you mean 'gae'"):
        check(gradtoken.wrap(tiny_vit()), ["gradtoken", "gea"])


def test_a_blank_map_is_no_explanation() -> None:
    module = tiny_vit()
    nn.init.zeros_(module.head.weight)
    found = check(gradtoken.wrap(module))
    assert not found.works
    assert "blank map" in found.methods["gradtoken"]


def test_one_logit_has_no_second_output_to_compare_with() -> None:
    found = check(gradtoken.wrap(tiny_vit(num_classes=1)))
    assert found.methods == dict.fromkeys(gradtoken.methods(), WORKS)
    assert found.activation == "sigmoid"


@pytest.mark.slow
def test_json_and_exit_code() -> None:
    result = run(app, ["check", "timm/vit_tiny_patch16_224", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    keys = ["works", "spec", "blocks", "attention_calls", "grid", "prefix", "readout"]
    assert list(found) == [*keys, "verified", "activation", "methods"]
    assert len(found["verified"]) == 8
    assert all(fact["value"] <= fact["allowed"] for fact in found["verified"])
    assert found["works"] is True
    assert found["grid"] == [14, 14]
    assert found["methods"]["gradtoken"] == WORKS


@pytest.mark.slow
def test_windowed_models_say_why_other_methods_do_not_work() -> None:
    result = run(app, ["check", "timm/swin_tiny_patch4_window7_224", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["readout"] == "mean of the last stage"
    assert "rollout needs the attention between all tokens" in found["methods"]["rollout"]


def test_a_table_for_people_and_the_demo() -> None:
    result = run(app, ["check", "demo"])
    assert result.exit_code == 0, result.output
    assert "14x14, 1 other tokens" in result.stdout
    assert "gradient at tokens that the head is not said to" in result.stdout


@pytest.mark.parametrize("spec", ["timm/resnet18", "timm/convit_tiny", "timm/no_such_vit", "nil"])
def test_a_model_that_cannot_be_explained_ends_with_the_reason(spec: str) -> None:
    result = run(app, ["check", spec])
    assert isinstance(result.exception, ModelError)
    assert result.exit_code == 1


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone() -> None:
    state = torch.get_rng_state()
    one, two = (gradtoken.load("timm/vit_tiny_patch16_224", pretrained=False) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.module.head.weight, two.module.head.weight)
    assert one.weights == "random"
    with pytest.raises(ModelError, match="without a weights file"):
        gradtoken.load("demo", pretrained=False)
