"""How a class is read is verified on the model's own gradient, and read anew where it is not so."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import gradtoken
from gradtoken.checking import check
from gradtoken.errors import MethodError, ModelError
from gradtoken.models.layout import TokenLayout
from gradtoken.tap.anatomy import Anatomy
from tests.models import own
from tests.models.own import A, B, by_gradient, images, tokens_of, vit, wrap
from tests.snapshot import Snapshot

PATCHES = range(1, 17)


def test_read_class_token() -> None:
    module = vit()
    model = wrap(module)
    assert (model.anatomy.readout, model.layout.rows) == ("class token", (0,))
    assert all(fact.holds for fact in model.reading.facts)
    expected = by_gradient(module, images(), A, rows=[0], spatial=PATCHES)
    actual = tokens_of(model, images(), gradient="full")[0]
    torch.testing.assert_close(actual, expected.double(), rtol=1e-5, atol=1e-7)


def _mean_share(module: nn.Module, label: int, rows: slice) -> Tensor:
    """<z_i, dy/dz_i> of the tokens z that the head averages, by autograd on the norm's output."""
    kept: list[Tensor] = []
    hook = module.norm.register_forward_hook(lambda *args: kept.append(args[2]))
    output = module(images().requires_grad_())
    hook.remove()
    (grad,) = torch.autograd.grad(output[0, label], kept[-1])
    return (grad * kept[-1])[0, rows].sum(-1).detach()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (own.MeanOfPatches, "mean of patch tokens"),
        (own.ClassAndMean, "class token and mean of patch tokens"),
    ],
)
def test_read_subclass_with_own_pooling(kind: type, words: str) -> None:
    module = vit(kind)
    model = wrap(module)
    assert model.anatomy.readout == words
    rows = range(17) if "class" in words else PATCHES
    expected = by_gradient(module, images(), A, rows=rows, spatial=PATCHES)
    expected = expected + _mean_share(module, A, slice(1, None))
    actual = tokens_of(model, images(), gradient="full")[0]
    torch.testing.assert_close(actual, expected.double(), rtol=1e-5, atol=1e-7)


def transformers_vit(forward: object) -> nn.Module:
    from transformers import ViTConfig, ViTModel, ViTPreTrainedModel

    from tests.models.zoo import seeded

    config = ViTConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=64,
        patch_size=16,
        num_labels=10,
    )

    class Own(ViTPreTrainedModel):
        def __init__(self) -> None:
            super().__init__(config)
            self.vit = ViTModel(config, add_pooling_layer=False)
            self.classifier = nn.Linear(48, 10)
            self.post_init()

        def forward(self, pixel_values: Tensor, **_: object) -> object:
            return forward(self.classifier, self.vit(pixel_values).last_hidden_state)

    return seeded(Own)


def test_read_transformers_subclass_that_averages() -> None:
    module = transformers_vit(lambda head, z: {"logits": head(z[:, 1:].mean(1))})
    model = wrap(module)
    assert model.anatomy.readout == "mean of patch tokens"
    logits = lambda x: module(x)["logits"]  # noqa: E731
    expected = by_gradient(logits, images(), A, rows=PATCHES, spatial=PATCHES)
    kept: list[Tensor] = []
    hook = module.vit.layernorm.register_forward_hook(lambda *args: kept.append(args[2]))
    output = logits(images().requires_grad_())
    hook.remove()
    (grad,) = torch.autograd.grad(output[0, A], kept[-1])
    expected = expected + (grad * kept[-1])[0, 1:].sum(-1).detach()
    actual = tokens_of(model, images(), gradient="full")[0]
    torch.testing.assert_close(actual, expected.double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "output",
    [
        lambda head, z: {"logits": head(z[:, 0]), "hidden": z},
        lambda head, z: {"scores": head(z[:, 0]), "hidden": z},
        lambda head, z: (head(z[:, 0]), z),
    ],
    ids=["mapping", "the only matrix of a mapping", "tuple"],
)
def test_read_logits_among_other_outputs(output: object) -> None:
    actual = tokens_of(wrap(transformers_vit(output)), images())
    expected = tokens_of(wrap(transformers_vit(lambda head, z: head(z[:, 0]))), images())
    assert torch.equal(actual, expected)


def test_read_vector_output_as_one_logit() -> None:
    class OneNumber(own.Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            return self.vit(x)[:, 0]

    model = wrap(OneNumber(num_classes=1))
    actual = gradtoken.explain(model, images(3), 0)
    assert actual.scores.shape == (3, 1)
    torch.testing.assert_close(actual.scores[:, 0], model.module(images(3)).detach())


@pytest.mark.parametrize("count", [2, 3, 4])
def test_read_head_on_last_class_tokens(count: int) -> None:
    module = own.LastLayers(count).eval()
    model = wrap(module)
    assert model.anatomy.readout == f"class token of the last {count} blocks"
    expected = by_gradient(module, images(), A, rows=[0], spatial=PATCHES)
    actual = tokens_of(model, images(), gradient="full")[0]
    torch.testing.assert_close(actual, expected.double(), rtol=1e-5, atol=1e-7)


def test_stream_gradient_of_head_on_several_blocks() -> None:
    """Where the head reads the last two blocks, the stream is the full gradient in the last two."""
    model = wrap(own.LastLayers(2).eval())
    stream, full = (
        tokens_of(model, images(), gradient=kind, layers=2) for kind in ("stream", "full")
    )
    torch.testing.assert_close(stream, full, rtol=1e-5, atol=1e-8)


def test_read_head_on_early_blocks() -> None:
    """All evidence is in the second block: later ones are no part of the reading."""

    class Early(own.Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            (_, prefix), *_ = self.vit.get_intermediate_layers(
                x, n=3, return_prefix_tokens=True, norm=True
            )
            return self.vit.head(prefix[:, 0])

    module = Early().eval()
    model = wrap(module)
    assert len(model.anatomy.blocks) == 2
    expected = by_gradient(module, images(), A, rows=[0], spatial=PATCHES)
    actual = tokens_of(model, images(), gradient="full")[0]
    torch.testing.assert_close(actual, expected.double(), rtol=1e-5, atol=1e-7)


def test_read_class_tokens_and_mean() -> None:
    """DINOv2's linear heads."""
    module = own.LastLayers(4, mean=True).eval()
    model = wrap(module)
    assert "class token and mean of patch tokens" in model.anatomy.readout
    assert model.anatomy.reads == (0, 1, 2, 3)
    readouts = gradtoken.explain(model, images(), A, preset="faithful", gradient="full")
    expected = by_gradient(module, images(), A, rows=[0], spatial=PATCHES, calls=slice(0, 4))
    rows = by_gradient(module, images(), A, rows=PATCHES, spatial=PATCHES)
    kept: list[Tensor] = []
    hook = module.vit.norm.register_forward_hook(lambda *args: kept.append(args[2]))
    output = module(images().requires_grad_())
    hook.remove()
    (grad,) = torch.autograd.grad(output[0, A], kept[-1])
    mean = (grad * kept[-1])[0, 1:].sum(-1).detach()
    actual = readouts.tokens.flatten().double()
    torch.testing.assert_close(actual, (expected + rows + mean).double(), rtol=1e-5, atol=1e-7)


METHODS = ["gradtoken", "gae", "rollout", "raw-attention", "attcat", "legrad", "tokentm"]


@pytest.mark.parametrize("method", METHODS)
def test_read_blocks_in_two_lists(method: str) -> None:
    model = wrap(own.TwoLists().eval())
    assert len(model.anatomy.blocks) == 4
    actual, expected = (
        gradtoken.explain(one, images(2), [A, B], method=method).tokens
        for one in (model, wrap(vit()))
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("gradient", ["stream", "full"])
def test_explain_ensemble_sums_members(gradient: str) -> None:
    one, other = vit(), vit(own.MeanOfPatches, depth=2)
    model = wrap(own.Ensemble(one, other).eval())
    assert [len(m.anatomy.blocks) for m in (model, *model.others)] == [4, 2]
    actual = tokens_of(model, images(), gradient=gradient)
    parts = [tokens_of(wrap(m), images(), gradient=gradient) for m in (one, other)]
    torch.testing.assert_close(actual, sum(parts) / 2, rtol=1e-5, atol=1e-8)
    before = Snapshot(model.module)
    with pytest.raises(MethodError, match=r"gae follows one chain.*from 2 backbones"):
        gradtoken.explain(model, images(), A, method="gae")
    before.check(model.module)


def test_read_ensemble_with_attention_pools() -> None:
    """Each member's attention after its blocks belongs to it alone."""
    one, other = (
        vit(global_pool="map", class_token=False),
        vit(global_pool="map", class_token=False),
    )
    with torch.no_grad():
        other.head.weight.mul_(-2)
    model = wrap(own.Ensemble(one, other).eval())
    parts = [tokens_of(wrap(m), images()) for m in (one, other)]
    torch.testing.assert_close(tokens_of(model, images()), sum(parts) / 2, rtol=1e-5, atol=1e-8)


def test_read_normalised_outputs() -> None:
    module = own.Normalised().eval()
    expected = by_gradient(module, images(), A, rows=[0], spatial=PATCHES)
    actual = tokens_of(wrap(module), images(), gradient="full")[0]
    torch.testing.assert_close(actual, expected.double(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("method", ["gradtoken", "gae", "grad-cam", "attcat", "occlusion", "rise"])
def test_explain_backbone_under_no_grad(method: str) -> None:
    module = own.FrozenBackbone().eval()
    plain = copy.deepcopy(module)
    plain.forward = lambda x: plain.head(plain.vit(x))
    options = {"masks": 8} if method == "rise" else {}
    actual, expected = (
        gradtoken.explain(wrap(one), images(), [A, B], method=method, **options).tokens
        for one in (module, plain)
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("method", ["saliency", "input-x-gradient", "smoothgrad"])
def test_pixel_methods_reject_backbone_under_no_grad(method: str) -> None:
    with pytest.raises(MethodError, match=f"{method} needs the gradient at the pixels.*no_grad"):
        gradtoken.explain(wrap(own.FrozenBackbone().eval()), images(), A, method=method)


@pytest.mark.parametrize("method", ["gradtoken", "gae", "legrad", "attcat"])
def test_explain_blocks_that_take_lists(method: str) -> None:
    actual, expected = (
        gradtoken.explain(wrap(one), images(2), [A, B], method=method).tokens
        for one in (own.Lists().eval(), vit())
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (own.FlipAverage, r"run more than once in a forward \(test-time augmentation"),
        (own.SideBranch, "by a way around its blocks"),
        (own.LongSkip, "block 3 of LongSkip gets more than what block 2 made"),
        (own.MeanOfLayers, "reads the patches of several blocks"),
        (own.Pruned, r"changes \(from 17 to 9\): tokens are pruned, merged or added"),
        (own.Merged, r"changes \(from 17 to 9\): tokens are pruned, merged or added"),
        (own.Checkpointed, r"again in the backward pass \(gradient checkpointing\)"),
    ],
)
def test_read_rejects_unsupported_structure(module: type, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        wrap(module().eval())


def test_read_rejects_backbones_of_different_patches() -> None:
    module = own.Ensemble(vit(), vit(patch_size=32)).eval()
    with pytest.raises(ModelError, match=r"whose patches differ \(4x4 and 2x2\)"):
        wrap(module)


def test_wrap_takes_own_forward() -> None:
    class OfBatches(own.Wrapped):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"out": self.vit(batch["image"])[:, :, None]}

    module = OfBatches().eval()
    with pytest.raises(ModelError, match=r"cannot run on a batch.*wrap\(…, forward=…\)"):
        wrap(module)
    model = wrap(module, forward=lambda m, x: m({"image": x})["out"][..., 0])
    torch.testing.assert_close(tokens_of(model, images()), tokens_of(wrap(vit()), images()))


def test_read_rejects_head_without_gradient() -> None:
    class Detached(own.Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            return self.vit(x).detach()

    with pytest.raises(ModelError, match="has no gradient"):
        wrap(Detached().eval())


def test_read_rejects_sequence_first_blocks() -> None:
    class SequenceFirst(own.Wrapped):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(48, 3, 96, norm_first=True, dropout=0.0)
            self.blocks = nn.ModuleList(copy.deepcopy(layer) for _ in range(3)).double()

        def forward(self, x: Tensor) -> Tensor:
            x = self.embedded(x).transpose(0, 1)
            for block in self.blocks:
                x = block(x)
            return self.vit.head(x[0])

    with pytest.raises(ModelError, match=r"tokens as \(tokens, images, channels\)"):
        wrap(SequenceFirst().eval())


def test_current_rejects_exchanged_parts() -> None:
    model = wrap(vit())
    model.module.blocks[2] = copy.deepcopy(model.module.blocks[2])
    with pytest.raises(ModelError, match=r"were exchanged after it was wrapped.*wrap it again"):
        gradtoken.explain(model, images(), A)
    assert tokens_of(wrap(model.module), images()).abs().max() > 0


def test_current_verifies_zero_head_once_filled() -> None:
    """Nothing can be verified while the output depends on nothing; a wrong reading shows then."""
    module = vit(own.MeanOfPatches)
    plain = vit()
    for one in (module, plain):
        nn.init.zeros_(one.head.weight)
    model, right = wrap(module), wrap(plain)
    assert model.reading.blank
    assert not gradtoken.explain(model, images(), A).tokens.any()
    for one in (module, plain):
        nn.init.normal_(one.head.weight)
    with pytest.raises(ModelError, match="is read as 'class token', but 100%"):
        gradtoken.explain(model, images(), A)
    assert gradtoken.explain(right, images(), A).tokens.any()
    assert not right.reading.blank


def test_explain_does_not_read_model_again() -> None:
    module, runs = vit(), []
    module.register_forward_pre_hook(lambda *_: runs.append(1))
    model = wrap(module)
    assert len(runs) <= 4
    runs.clear()
    gradtoken.explain(model, images(2), A)
    gradtoken.explain(model, images(), [A, B])
    assert len(runs) == 2


class Switched(nn.Module):
    """Its settings and size decide which tokens it reads."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.vit = vit(dynamic_img_size=True, **options)
        self.mean = self.last = self.by_batch = False

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.vit.patch_embed(x)
        tokens = self.vit._pos_embed(tokens)
        if self.last:
            tokens = torch.cat([tokens[:, 1:], tokens[:, :1]], 1)
        tokens = self.vit.norm(self.vit.blocks(tokens))
        if self.mean or (self.by_batch and len(x) > 1):
            return self.vit.head(tokens[:, 1:].mean(1))
        return self.vit.head(tokens[:, -1 if self.last else 0])


def test_explain_rejects_changed_settings() -> None:
    module = Switched().eval()
    model = wrap(module)
    module.mean = True
    with pytest.raises(ModelError, match=r"was read as 'class token', but 100% .*wrap it again"):
        gradtoken.explain(model, images(), A)
    assert wrap(module).anatomy.readout == "mean of patch tokens"


def test_explain_rejects_batch_with_other_readout() -> None:
    module = Switched().eval()
    module.by_batch = True
    model = wrap(module)
    assert gradtoken.explain(model, images(), A).tokens.any()
    with pytest.raises(ModelError, match="lies elsewhere for these images"):
        gradtoken.explain(model, images(2), A)


def test_explain_rejects_size_with_other_readout() -> None:
    module = Switched().eval()
    module.last = True
    model = wrap(module)
    assert model.layout.rows == (16,)
    with pytest.raises(ModelError, match="lies elsewhere for these images"):
        gradtoken.explain(model, images(side=96), A)


def test_wrap_with_other_forward_reads_again() -> None:
    module = vit()
    one = wrap(module)
    other = wrap(module, forward=lambda m, x: m.head(m.forward_features(x)[:, 1:].mean(1)))
    assert one.anatomy.readout == wrap(module).anatomy.readout == "class token"
    assert other.anatomy.readout == "mean of patch tokens"


def test_explain_uses_weights_loaded_after_wrap() -> None:
    """Half of the head is zero when the model is wrapped, and filled by a checkpoint."""
    module = vit(own.ClassAndMean)
    filled = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        module.head.weight[:, 48:] = 0
    model = wrap(module)
    assert model.anatomy.readout == "class token"
    module.load_state_dict(filled)
    with pytest.raises(ModelError, match="lies elsewhere for these images"):
        gradtoken.explain(model, images(), A)
    assert wrap(module).anatomy.readout == "class token and mean of patch tokens"


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_read_inside_no_grad(around: type) -> None:
    module = own.LastLayers().eval()
    with around():
        model = wrap(module)
    assert model.anatomy.readout == "class token of the last 3 blocks"


def test_read_inside_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        model = wrap(vit().float())
    assert all(fact.holds for fact in model.reading.facts)
    assert max(fact.value for fact in model.reading.facts if not fact.least) < 1e-3


def test_read_leaves_module_unchanged_and_unreferenced() -> None:
    module = vit(drop_path_rate=0.2).train()
    module.blocks[1].eval()
    module.blocks[0].requires_grad_(False)
    before = Snapshot(module)
    model = wrap(module)
    before.check(module)
    kept = weakref.ref(module)
    del model, module, before
    gc.collect()
    assert kept() is None


def test_read_leaves_batch_statistics_unchanged() -> None:
    module = own.BehindBatchNorm().train()
    before = {name: value.clone() for name, value in module.named_buffers()}
    model = wrap(module)
    gradtoken.explain(model, images(), A)
    check(model, ["gradtoken"])
    for name, value in module.named_buffers():
        assert torch.equal(value, before[name]), name
    assert module.norm.training


def test_wrap_rejects_wrong_layout() -> None:
    with pytest.raises(ModelError, match=r"says a 2x8 grid, but its tokens.* as a 4x4 grid"):
        wrap(vit(), layout=TokenLayout(None, grid=(2, 8)))
    with pytest.raises(ModelError, match="says prefix tokens 2, but the model shows 1"):
        wrap(own.TwoLists().eval(), layout=TokenLayout(None, prefix=2))
    layout = TokenLayout((16, 16))
    assert wrap(own.TwoLists().eval(), layout=layout).layout == layout


def test_current_verifies_model_made_by_hand() -> None:
    module = vit(own.MeanOfPatches)
    right = wrap(module)
    wrong = replace(
        right,
        anatomy=Anatomy("class token", right.anatomy.blocks),
        layout=TokenLayout((16, 16)),
        reading=None,
    )
    with pytest.raises(ModelError, match="is read as 'class token', but 100%"):
        gradtoken.explain(wrong, images(), A)
