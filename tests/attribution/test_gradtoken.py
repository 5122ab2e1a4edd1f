"""GradToken against its equations written out, under every option."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.attribution.layers import select_layers
from gradtoken.errors import MethodError, TargetError
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.gradients import readouts, targets_per_chunk
from gradtoken.trace.record import record
from tests.attribution.by_hand import by_hand, class_by_hand, rivals
from tests.conftest import inputs, tiny_vit

CLASSES = [3, 7]


FIRST = {"rivals": 0}
"""The class's logit alone."""

OPTIONS: dict[str, tuple[dict, dict]] = {
    "default": ({}, {}),
    "all blocks alike": ({"depth": 0}, {"depth": 0}),
    "half a power of depth": ({"depth": 0.5}, {"depth": 0.5}),
    "full gradient": ({"gradient": "full"}, {"full": True}),
    "upper half": ({"layers": "half"}, {"layers": [2, 3]}),
    "last block": ({"layers": "last"}, {"layers": [3]}),
    "last three": ({"layers": 3}, {"layers": [1, 2, 3]}),
    "list of blocks": ({"layers": [0, -1]}, {"layers": [0, 3]}),
    "beta 1": ({"beta": 1.0}, {"beta": 1.0}),
    "beta 0": ({"beta": 0.0}, {"beta": 0.0}),
    "signed": ({"rectify": None}, {"rectify": None}),
    "rectified, not centred": ({"slope": 0, "centre": False}, {"slope": 0, "centre": False}),
    "rectified": ({"slope": 0.0}, {"slope": 0}),
    "slope": ({"slope": 0.25}, {"slope": 0.25}),
    "rectify layer": ({"rectify": "layer"}, {"rectify": "layer"}),
    "rectify final": ({"rectify": "final"}, {"rectify": "final"}),
    "three rivals": ({"rivals": 3}, {"rivals": 3}),
    "no rivals": (FIRST, FIRST),
    "rivals alike": ({"rival_weight": "equal"}, {"rival_weight": "equal"}),
    "rivals by likelihood": ({"rival_weight": "likelihood"}, {"rival_weight": "likelihood"}),
    "no spread": ({"spread": None}, {"spread": None}),
    "attention spread": ({"spread": "attention"}, {"spread": "attention"}),
    "mutual attention of all blocks": ({"spread_layers": "all"}, {"lower": False}),
    "further": ({"spread": "mutual", "reach": 0.4}, {"reach": 0.4}),
    "near": ({"spread": "near"}, {"spread": "near", "reach": 0.05}),
    "token spread": ({"spread": "token"}, {"spread": "token", "reach": 0.05}),
    "token spread, warmer": (
        {"spread": "token", "temperature": 0.5, "reach": 0.15},
        {"spread": "token", "temperature": 0.5, "reach": 0.15},
    ),
    "token spread, anywhere": (
        {"spread": "token", "reach": None},
        {"spread": "token", "reach": None},
    ),
    "content": ({"channel_weight": "content"}, {"channel_weight": "content"}),
    "product": ({"channel_weight": "product"}, {"channel_weight": "product"}),
    "faithful": (
        {"preset": "faithful"},
        {"beta": 1.0, "depth": 0, "rectify": None, "rivals": 0, "spread": None},
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_gradtoken_equals_equations_under_every_option(
    model: Model, batch: Tensor, case: str
) -> None:
    options, oracle = OPTIONS[case]
    trace = record(model, batch)
    maps = make_method("gradtoken", **options)(trace, resolve(CLASSES, trace.logits, model.labels))
    for b, image in enumerate(batch):
        for k, label in enumerate(CLASSES):
            expected = class_by_hand(model, image, label, **oracle)
            torch.testing.assert_close(maps[b, k], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("layers", ["half", "last", 2, [0, 2], [-1]])
def test_first_block_is_the_first_selected(model: Model, batch: Tensor, layers) -> None:
    method = make_method("gradtoken", layers=layers)
    first = select_layers(layers, 4)[0]
    affinity = method.affinity_blocks(4)
    whole, short = (record(model, batch, start=at, affinity=affinity) for at in (0, first))
    assert whole.depth == 4
    assert method.first_block(4) == first
    assert [call.place for call in short.block_calls] == list(range(first, 4))
    targets = resolve(CLASSES, whole.logits, model.labels)
    assert torch.equal(method(short, targets), method(whole, targets))
    lean = record(model, batch, start=first, queries=False, affinity=affinity)
    torch.testing.assert_close(method(lean, targets), method(whole, targets), rtol=1e-9, atol=1e-12)
    for other in ({"spread": "attention"}, {"gradient": "full"}):
        assert make_method("gradtoken", layers=layers, **other).first_block(4) == 0


def test_affinity_blocks_and_queries_by_spread() -> None:
    for spread, lower, every in (("auto", 3, 5), ("mutual", 3, 5), ("near", 0, 0)):
        method = make_method("gradtoken", spread=spread)
        assert list(method.affinity_blocks(5)) == list(range(lower))
        every_block = make_method("gradtoken", spread=spread, spread_layers="all")
        assert list(every_block.affinity_blocks(5)) == list(range(every))
        assert not method.needs_queries()
    assert make_method("gradtoken", spread="attention").needs_queries()


def test_gradtoken_equals_equations_in_every_layout(variant: Model) -> None:
    images = inputs(variant)
    trace = record(variant, images)
    maps = make_method("gradtoken")(trace, resolve(CLASSES, trace.logits, variant.labels))
    for k, label in enumerate(CLASSES):
        expected = class_by_hand(variant, images[1], label)
        torch.testing.assert_close(maps[1, k], expected, rtol=1e-9, atol=1e-11)


def test_gradtoken_of_single_output_has_no_rivals() -> None:
    model = gradtoken.wrap(tiny_vit(num_classes=1))
    images = inputs(model)
    default = gradtoken.explain(model, images, 0).tokens
    assert torch.equal(default, gradtoken.explain(model, images, 0, rivals=0).tokens)
    assert float(default.abs().max()) > 0


def test_gradtoken_target_option_equals_equations(model: Model, batch: Tensor) -> None:
    scores = {
        "log_prob": lambda z, c: z.log_softmax(-1)[c],
        "others": lambda z, c: z[c] - z[7 if c == 3 else 3],
        "rivals(2)": lambda z, c: rivals(z, c, 2),
        "rivals": lambda z, c: rivals(z, c, 5),
        "rivals(3, 0.25)": lambda z, c: rivals(z, c, 3, 0.25),
    }
    for kind, score in scores.items():
        maps = gradtoken.explain(model, batch, CLASSES, target=kind).tokens[0].flatten(1)
        for k, label in enumerate(CLASSES):
            expected = by_hand(model, batch[0], lambda z, c=label, s=score: s(z, c))
            torch.testing.assert_close(maps[k], expected.float(), rtol=1e-5, atol=1e-6)


def test_preset_v01_equals_equations(model: Model, batch: Tensor) -> None:
    maps = gradtoken.explain(model, batch, CLASSES, preset="v0.1").tokens[0].flatten(1)
    for k, label in enumerate(CLASSES):
        expected = by_hand(
            model,
            batch[0],
            lambda z, c=label: rivals(z, c, 5, 0.5),
            rectify=None,
            spread="near",
            reach=0.05,
        )
        torch.testing.assert_close(maps[k], expected.float(), rtol=1e-5, atol=1e-6)


def test_preset_faithful_is_complete(variant: Model) -> None:
    trace = record(variant, inputs(variant))
    targets = resolve(CLASSES, trace.logits, variant.labels)
    for block in range(trace.depth):
        method = make_method("gradtoken", preset="faithful", layers=[block])
        total = method.all_tokens(trace, targets).sum(-1)
        (step,) = readouts(trace, targets).blocks[block]
        expected = torch.einsum("bhkrd,bhrd->bk", step.gradient, step.output)
        torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-12)


def test_gradtoken_of_all_targets_equals_single_targets(
    model: Model, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = list(range(10))
    together = gradtoken.explain(model, batch, everything).tokens
    for label in everything:
        alone = gradtoken.explain(model, batch, label).tokens
        torch.testing.assert_close(together[:, label], alone[:, 0])
    for limit in ("gradients.TARGET_ELEMENTS", "backward.TAIL_ELEMENTS"):
        monkeypatch.setattr(f"gradtoken.trace.{limit}", 4 * 4 * 2 * 3 * 65)
    torch.testing.assert_close(gradtoken.explain(model, batch, everything).tokens, together)


@pytest.mark.parametrize(
    "options", [{}, {"preset": "faithful"}, {"preset": "v0.1"}, {"spread": "token"}]
)
def test_by_block_equals_equations(model: Model, batch: Tensor, options: dict) -> None:
    trace = record(model, batch)
    targets = resolve(CLASSES, trace.logits, model.labels)
    method = make_method("gradtoken", **options)
    parts = method.by_block(trace, targets)
    assert parts.shape == (2, 2, 4 + 1, 64)
    torch.testing.assert_close(parts.sum(2), method(trace, targets))
    assert not parts[:, :, -1].any()
    for layers in ([0], [1, 3], [-1]):
        some = make_method("gradtoken", **{**options, "layers": layers})
        torch.testing.assert_close(parts[:, :, :-1][:, :, layers].sum(2), some(trace, targets))
        left_out = [block for block in range(4) if block not in [layer % 4 for layer in layers]]
        assert not some.by_block(trace, targets)[:, :, left_out].any()
    if not options:
        expected = class_by_hand(model, batch[1], 7, layers=[2])
        torch.testing.assert_close(parts[1, 1, 2], expected, rtol=1e-9, atol=1e-11)


def test_by_block_equal_in_chunks_of_targets(
    model: Model, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = record(model, batch)
    targets = resolve(list(range(10)), trace.logits, model.labels)
    whole = make_method("gradtoken").by_block(trace, targets)
    monkeypatch.setattr("gradtoken.trace.gradients.TARGET_ELEMENTS", 4 * 4 * 2 * 3 * 65)
    assert targets_per_chunk(trace, "auto") < 10
    torch.testing.assert_close(make_method("gradtoken").by_block(trace, targets), whole)


def test_by_block_puts_readout_after_blocks_last() -> None:
    pooled = gradtoken.wrap(tiny_vit(class_token=False, global_pool="avg"))
    trace = record(pooled, inputs(pooled))
    targets = resolve(CLASSES, trace.logits, pooled.labels)
    through, alone = make_method("gradtoken"), make_method("gradtoken", gradient="stream")
    parts = through.by_block(trace, targets)
    assert parts.shape[2] == 5
    assert parts[:, :, -1].any()
    torch.testing.assert_close(parts.sum(2), through(trace, targets))
    only = alone.by_block(trace, targets)
    assert only.shape[2] == 1
    torch.testing.assert_close(only[:, :, 0], alone(trace, targets))


def test_by_block_rejects_rectified_sum(model: Model, batch: Tensor) -> None:
    trace = record(model, batch)
    method = make_method("gradtoken", rectify="final")
    with pytest.raises(MethodError, match="has no parts by block"):
        method.by_block(trace, resolve(CLASSES, trace.logits, model.labels))


def test_preset_is_overridden_by_explicit_options() -> None:
    assert make_method("gradtoken", preset="faithful", spread="attention").spread == "attention"
    assert make_method("gradtoken", preset="faithful").options()["beta"] == 1.0
    default = make_method("gradtoken", preset="faithful", beta=0.5, spread="near", rectify="head")
    assert default == make_method("gradtoken", rivals=0, depth=0, spread="near")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gradient": "half"}, "gradient is 'half'; it can be 'auto', 'stream', 'full'"),
        ({"rectify": "relu"}, "rectify is 'relu'"),
        ({"spread": "value"}, "spread is 'value'"),
        ({"reach": None}, 'spread="auto" needs a reach'),
        ({"reach": None, "spread": "mutual"}, 'spread="mutual" needs a reach'),
        ({"reach": "far"}, "reach is 'far'; it must be"),
        ({"slope": 1.5}, "slope is 1.5; it must be from 0 to 1"),
        ({"rivals": -1}, "rivals is -1; it must be a whole number"),
        ({"rival_weight": "p"}, "rival_weight is 'p'"),
        ({"spread_layers": "upper"}, "spread_layers is 'upper'"),
        ({"channel_weight": "sum"}, "channel_weight is 'sum'"),
        ({"preset": "best"}, "preset is 'best'"),
        ({"beta": -1.0}, "beta is -1.0; it must be"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"beta": "big"}, "beta is 'big'"),
        ({"temperature": 1e-40}, "temperature is 1e-40; it must be"),
        ({"rectify": ["head"]}, "rectify is ['head']"),
        ({"temprature": 0.2}, "no option 'temprature'; did you mean 'temperature'"),
    ],
)
def test_gradtoken_rejects_options_out_of_range(options: dict, words: str) -> None:
    with pytest.raises(MethodError) as caught:
        make_method("gradtoken", **options)
    assert words in str(caught.value)


def test_gradtoken_rejects_unknown_target_kind() -> None:
    for kind in ("rival", "rivals(0)"):
        with pytest.raises(TargetError, match="unknown target kind"):
            make_method("gradtoken", target=kind)


def test_gradtoken_target_others_needs_two_classes(model: Model, batch: Tensor) -> None:
    with pytest.raises(TargetError, match="at least two classes"):
        gradtoken.explain(model, batch, 3, target="others")
