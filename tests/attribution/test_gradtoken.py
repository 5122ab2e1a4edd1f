"""GradToken against its equations written out, for every option."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.attribution.gradtoken import PRESETS
from gradtoken.attribution.layers import select_layers
from gradtoken.errors import MethodError, TargetError
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.gradients import readouts, targets_at_once
from gradtoken.trace.record import record
from tests.conftest import inputs, tiny_vit
from tests.oracle import Written

CLASSES = [3, 7]


def by_hand(
    model: Model,
    image: Tensor,
    score,
    *,
    full: bool = False,
    layers: list[int] | None = None,
    beta: float = 0.5,
    depth: float = 2,
    rectify: str | None = None,
    spread: str | None = "near",
    temperature: float = 0.1,
    reach: float | None = 0.05,
    channel_weight: str | None = None,
) -> Tensor:
    """Relevance of the spatial tokens (N,), token by token and head by head."""
    prefix = model.layout.prefix
    blocks, gammas = Written(model.module, image).gradients(score, full=full)
    total = torch.zeros(len(blocks[0].entering), dtype=torch.float64)
    for index, (block, gamma) in enumerate(zip(blocks, gammas, strict=True)):
        if layers is not None and index not in layers:
            continue
        share = torch.zeros_like(total)
        for head, direction in enumerate(gamma):
            output = block.output[head, 0]
            if channel_weight == "content":
                direction = direction * output.abs()
            if channel_weight == "product":
                direction = direction * output
            for token in range(len(total)):
                relation = torch.dot(direction, block.value[head, token])
                if rectify == "head":
                    relation = relation.clamp_min(0)
                share[token] += block.attention[head, 0, token] ** beta * relation
        weight = ((index + 1) / len(blocks)) ** depth
        total += weight * (share.clamp_min(0) if rectify == "layer" else share)
    if rectify == "final":
        total = total.clamp_min(0)
    relevance = total[prefix:]
    rows, columns = (side // 8 for side in image.shape[1:])
    if spread == "near":
        weights = torch.zeros(rows * columns, rows * columns, dtype=torch.float64)
        for i in range(rows * columns):
            for j in range(rows * columns):
                squared = (i // columns - j // columns) ** 2 + (i % columns - j % columns) ** 2
                weights[i, j] = math.exp(-squared / (2 * reach**2 * rows * columns))
        relevance = (weights / weights.sum(-1, keepdim=True)) @ relevance
    if spread == "token":
        tokens = blocks[len(blocks) - 2].entering[prefix:]
        tokens = tokens - tokens.mean(0)
        cosine = torch.stack([torch.cosine_similarity(tokens, one[None], dim=-1) for one in tokens])
        logits = cosine / temperature
        if reach is not None:
            for i in range(rows * columns):
                for j in range(rows * columns):
                    squared = (i // columns - j // columns) ** 2 + (i % columns - j % columns) ** 2
                    logits[i, j] -= squared / (2 * reach**2 * rows * columns)
        relevance = logits.softmax(-1) @ relevance
    if spread == "attention":
        mixing = torch.stack([b.attention[:, prefix:, prefix:].mean(0) for b in blocks]).mean(0)
        relevance = (mixing / mixing.sum(-1, keepdim=True)) @ relevance
    return relevance.detach()


OPTIONS = {
    "logit": ({}, {}),
    "all blocks alike": ({"depth": 0}, {"depth": 0}),
    "half a power of depth": ({"depth": 0.5}, {"depth": 0.5}),
    "full gradient": ({"gradient": "full"}, {"full": True}),
    "upper half": ({"layers": "half"}, {"layers": [2, 3]}),
    "last block": ({"layers": "last"}, {"layers": [3]}),
    "last three": ({"layers": 3}, {"layers": [1, 2, 3]}),
    "list of blocks": ({"layers": [0, -1]}, {"layers": [0, 3]}),
    "beta 1": ({"beta": 1.0}, {"beta": 1.0}),
    "beta 0": ({"beta": 0.0}, {"beta": 0.0}),
    "rectify head": ({"rectify": "head"}, {"rectify": "head"}),
    "rectify layer": ({"rectify": "layer"}, {"rectify": "layer"}),
    "rectify final": ({"rectify": "final"}, {"rectify": "final"}),
    "no spread": ({"spread": None}, {"spread": None}),
    "attention spread": ({"spread": "attention"}, {"spread": "attention"}),
    "further": ({"reach": 0.4}, {"reach": 0.4}),
    "token spread": ({"spread": "token"}, {"spread": "token"}),
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
    "faithful": ({"preset": "faithful"}, {"beta": 1.0, "depth": 0, "spread": None}),
    "sharp": ({"preset": "sharp"}, {"rectify": "head"}),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_every_option_equals_the_equations(model: Model, batch: Tensor, case: str) -> None:
    options, oracle = OPTIONS[case]
    trace = record(model, batch)
    method = make_method("gradtoken", **{"target": "logit", **options})
    found = method(trace, resolve(CLASSES, trace.logits, model.labels))
    for b, image in enumerate(batch):
        for k, label in enumerate(CLASSES):
            expected = by_hand(model, image, lambda z, c=label: z[c], **oracle)
            torch.testing.assert_close(found[b, k], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("layers", ["half", "last", 2, [0, 2], [-1]])
def test_blocks_before_the_first_chosen_are_not_kept(model: Model, batch: Tensor, layers) -> None:
    method = make_method("gradtoken", layers=layers)
    first = select_layers(layers, 4)[0]
    whole, short = (record(model, batch, start=start) for start in (0, first))
    assert whole.depth == 4
    assert method.first_block(4) == first
    assert [call.place for call in short.block_calls] == list(range(first, 4))
    targets = resolve(CLASSES, whole.logits, model.labels)
    assert torch.equal(method(short, targets), method(whole, targets))
    lean = record(model, batch, start=first, queries=False)
    torch.testing.assert_close(method(lean, targets), method(whole, targets), rtol=1e-9, atol=1e-12)
    for other in ({"spread": "attention"}, {"gradient": "full"}):
        assert make_method("gradtoken", layers=layers, **other).first_block(4) == 0
    assert make_method("gradtoken", spread="attention").needs_queries()


def rivals(z: Tensor, label: int, count: int, weight: float = 1) -> Tensor:
    order = [i for i in z.argsort(descending=True).tolist() if i != label]
    return z[label] - weight * z[order[:count]].mean()


def test_the_default_in_every_layout_equals_the_equations(variant: Model) -> None:
    images = inputs(variant)
    trace = record(variant, images)
    found = make_method("gradtoken")(trace, resolve(CLASSES, trace.logits, variant.labels))
    for k, label in enumerate(CLASSES):
        expected = by_hand(variant, images[1], lambda z, c=label: rivals(z, c, 5, 0.5))
        torch.testing.assert_close(found[1, k], expected, rtol=1e-9, atol=1e-11)


def test_a_single_output_has_no_rivals() -> None:
    model = gradtoken.wrap(tiny_vit(num_classes=1))
    images = inputs(model)
    default = gradtoken.explain(model, images, 0).tokens
    assert torch.equal(default, gradtoken.explain(model, images, 0, target="logit").tokens)
    assert float(default.abs().max()) > 0


def test_sharpened_targets_equal_the_equations(model: Model, batch: Tensor) -> None:
    scores = {
        "log_prob": lambda z, c: z.log_softmax(-1)[c],
        "others": lambda z, c: z[c] - z[7 if c == 3 else 3],
        "rivals(2)": lambda z, c: rivals(z, c, 2),
        "rivals": lambda z, c: rivals(z, c, 5),
        "rivals(3, 0.25)": lambda z, c: rivals(z, c, 3, 0.25),
    }
    for kind, score in scores.items():
        found = gradtoken.explain(model, batch, CLASSES, target=kind).tokens[0].flatten(1)
        for k, label in enumerate(CLASSES):
            expected = by_hand(model, batch[0], lambda z, c=label, s=score: s(z, c))
            torch.testing.assert_close(found[k], expected.float(), rtol=1e-5, atol=1e-6)


def test_contrastive_preset_is_rivals_5_with_beta_07(model: Model, batch: Tensor) -> None:
    preset = gradtoken.explain(model, batch, 3, preset="contrastive").tokens
    spelt = gradtoken.explain(model, batch, 3, target="rivals(5)", beta=0.7).tokens
    assert torch.equal(preset, spelt)
    assert not torch.allclose(preset, gradtoken.explain(model, batch, 3).tokens)


def test_stream_gradient_is_the_full_gradient_in_the_last_two_blocks(variant: Model) -> None:
    trace = record(variant, inputs(variant))
    targets = resolve(CLASSES, trace.logits, variant.labels)
    stream, full = (
        [step for block in readouts(trace, targets, gradient=kind).blocks for step in block]
        for kind in ("stream", "full")
    )
    for one, other in zip(stream[-2:], full[-2:], strict=True):
        torch.testing.assert_close(one.gradient, other.gradient, rtol=1e-10, atol=1e-13)
    assert not torch.allclose(stream[0].gradient, full[0].gradient, rtol=1e-6)
    for one, other in zip(stream, full, strict=True):
        torch.testing.assert_close(one.attention, other.attention)
        torch.testing.assert_close(one.output, other.output)


def test_first_order_setting_is_complete(variant: Model) -> None:
    trace = record(variant, inputs(variant))
    targets = resolve(CLASSES, trace.logits, variant.labels)
    for block in range(trace.depth):
        method = make_method("gradtoken", preset="faithful", layers=[block])
        total = method.all_tokens(trace, targets).sum(-1)
        (step,) = readouts(trace, targets).blocks[block]
        expected = torch.einsum("bhkrd,bhrd->bk", step.gradient, step.output)
        torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-12)


def test_first_order_relation_is_the_gradient_by_attention(model: Model, batch: Tensor) -> None:
    """<gamma, v_i> = dy/da_i, so A * dA in the class row is an independent oracle."""
    trace = record(model, batch[:1])
    targets = resolve([3], trace.logits, model.labels)
    (last,) = readouts(trace, targets).blocks[-1]
    written = Written(model.module, batch[0])
    blocks, _ = written.forward()
    weights = blocks[-1].attention[:, 0].detach().requires_grad_()
    row = torch.einsum("hn,hnd->hd", weights, blocks[-1].value.detach())
    output = torch.cat([row[:, None], blocks[-1].output[:, 1:].detach()], dim=1)
    tokens = written.after(model.module.blocks[-1], blocks[-1].entering.detach(), output)
    (expected,) = torch.autograd.grad(written.logits(tokens)[3], weights)
    relation = torch.einsum("hd,hnd->hn", last.gradient[0, :, 0, 0], last.value[0])
    torch.testing.assert_close(relation, expected, rtol=1e-10, atol=1e-13)


def test_many_targets_at_once_equal_one_by_one(
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
    "options", [{}, {"preset": "faithful"}, {"preset": "sharp"}, {"spread": "token"}]
)
def test_the_parts_of_the_blocks_equal_the_equations(
    model: Model, batch: Tensor, options: dict
) -> None:
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
        expected = by_hand(model, batch[1], lambda z: rivals(z, 7, 5, 0.5), layers=[2])
        torch.testing.assert_close(parts[1, 1, 2], expected, rtol=1e-9, atol=1e-11)


def test_many_targets_have_the_same_parts_in_chunks(
    model: Model, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = record(model, batch)
    targets = resolve(list(range(10)), trace.logits, model.labels)
    whole = make_method("gradtoken").by_block(trace, targets)
    monkeypatch.setattr("gradtoken.trace.gradients.TARGET_ELEMENTS", 4 * 4 * 2 * 3 * 65)
    assert targets_at_once(trace, "auto") < 10
    torch.testing.assert_close(make_method("gradtoken").by_block(trace, targets), whole)


def test_a_readout_after_the_blocks_is_the_last_part() -> None:
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


def test_a_rectified_sum_has_no_parts(model: Model, batch: Tensor) -> None:
    trace = record(model, batch)
    method = make_method("gradtoken", rectify="final")
    with pytest.raises(MethodError, match="has no parts by block"):
        method.by_block(trace, resolve(CLASSES, trace.logits, model.labels))


def test_a_preset_yields_to_what_is_spelt_out() -> None:
    assert make_method("gradtoken", preset="faithful", spread="attention").spread == "attention"
    assert make_method("gradtoken", preset="faithful").options()["beta"] == 1.0
    default = make_method("gradtoken", preset="faithful", beta=0.5, spread="near")
    assert default == make_method("gradtoken", target="logit", depth=0)
    assert set(PRESETS) == {"faithful", "sharp", "contrastive"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gradient": "half"}, "gradient is 'half'; it can be 'auto', 'stream', 'full'"),
        ({"rectify": "relu"}, "rectify is 'relu'"),
        ({"spread": "value"}, "spread is 'value'"),
        ({"reach": None}, 'spread="near" needs a reach'),
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
def test_wrong_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(MethodError) as caught:
        make_method("gradtoken", **options)
    assert words in str(caught.value)


def test_wrong_target_kind_is_refused() -> None:
    for kind in ("rival", "rivals(0)"):
        with pytest.raises(TargetError, match="unknown target kind"):
            make_method("gradtoken", target=kind)


def test_layers_of_other_kinds_become_plain_lists() -> None:
    for layers in (range(2), np.array([0, 1]), (0, 1)):
        assert make_method("gradtoken", layers=layers).options()["layers"] == [0, 1]


@pytest.mark.parametrize("layers", [0, 5, -1, [], [4], [-5], "most", True, ["0"]])
def test_layers_that_do_not_fit_are_refused(layers: object) -> None:
    with pytest.raises(MethodError, match="does not fit a model of 4 blocks"):
        select_layers(layers, 4)


def test_others_needs_two_classes(model: Model, batch: Tensor) -> None:
    with pytest.raises(TargetError, match="at least two classes"):
        gradtoken.explain(model, batch, 3, target="others")
