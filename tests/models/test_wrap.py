"""Models inside other libraries' wrappers, and switches that change how a model runs."""

from __future__ import annotations

import copy
import inspect

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit
from tests.models import own
from tests.models.own import A, B, images, random_timm, vit, wrap
from tests.snapshot import Snapshot

NAME = "vit_tiny_patch16_224"
METHODS = {
    "gradtoken": {},
    "raw-attention": {},
    "rollout": {},
    "gae": {},
    "grad-cam": {},
    "grad-sam": {},
    "agcam": {},
    "legrad": {},
    "cdam": {},
    "attcat": {},
    "tokentm": {},
    "beyond-intuition": {"steps": 2},
    "tam": {"steps": 2},
    "transformer-attribution": {},
    "partial-lrp": {},
    "attnlrp": {},
    "saliency": {},
}


def maps(module: nn.Module, method: str = "gradtoken", **options: object) -> Tensor:
    model = wrap(module)
    return gradtoken.explain(model, images(2), [A, B], method=method, **options).tokens


def compiled_parts(what: str) -> nn.Module:
    """A ViT of which parts went through torch.compile, and have run compiled."""
    module = vit()
    for index, block in enumerate(module.blocks):
        if what == "blocks":
            module.blocks[index] = torch.compile(block, backend="eager")
        elif what == "attention":
            block.attn = torch.compile(block.attn, backend="eager")
        else:
            block.compile(backend="eager")
    with torch.no_grad():
        module(images())
    return module


@pytest.fixture(scope="module", params=["blocks", "attention", "blocks in place"])
def compiled(request: pytest.FixtureRequest) -> nn.Module:
    return compiled_parts(request.param)


@pytest.mark.parametrize("method", ["gradtoken", "gae", "rollout", "legrad", "tokentm", "attnlrp"])
def test_explain_model_with_compiled_parts(compiled: nn.Module, method: str) -> None:
    before = Snapshot(compiled)
    torch.testing.assert_close(maps(compiled, method), maps(vit(), method))
    before.check(compiled)


def test_explain_leaves_parts_compiled(compiled: nn.Module) -> None:
    runs = []

    def counting(graph: object, inputs: object) -> object:
        runs.append(1)
        return graph

    function = torch.compile(lambda x: x * 2 + 1, backend=counting)
    maps(compiled)
    function(torch.ones(3))
    assert runs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [{}, {"class_token": True, "reg_tokens": 2}])
def test_explain_turns_gradient_checkpointing_off(method: str, options: dict[str, object]) -> None:
    module = vit(**options)
    module.set_grad_checkpointing(True)
    before = Snapshot(module)
    actual = maps(module, method, **METHODS[method])
    before.check(module)
    assert module.grad_checkpointing
    torch.testing.assert_close(actual, maps(vit(**options), method, **METHODS[method]))


@pytest.mark.parametrize("method", ["gradtoken", "cdam", "attcat", "gae"])
def test_explain_checkpointing_with_position_bias(method: str) -> None:
    """With a bias or a mask, recomputed attention was not even noticed by torch."""
    from timm.models.vision_transformer_relpos import VisionTransformerRelPos

    def build() -> nn.Module:
        settings = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3}
        return own.seeded(
            lambda: VisionTransformerRelPos(
                **settings, num_classes=10, class_token=True, global_pool="token"
            )
        )

    module = build()
    module.set_grad_checkpointing(True)
    torch.testing.assert_close(maps(module, method), maps(build(), method))


@pytest.mark.parametrize("reentrant", [False, True])
def test_wrap_rejects_checkpointing_without_flag(reentrant: bool) -> None:
    class Checkpointed(own.Checkpointed):
        pass

    Checkpointed.reentrant = reentrant
    with pytest.raises(ModelError, match="gradient checkpointing"):
        maps(Checkpointed().eval())


def test_wrap_rejects_checkpointing_inside_block() -> None:
    from torch.utils.checkpoint import checkpoint

    class Half(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.block.attn(self.block.norm1(x))
            return x + checkpoint(
                lambda t: self.block.mlp(self.block.norm2(t)), x, use_reentrant=False
            )

    module = own.TwoLists().eval()
    module.second = nn.ModuleList(Half(block) for block in module.second)
    module.first = nn.ModuleList(Half(block) for block in module.first)
    with pytest.raises(ModelError, match="gradient checkpointing"):
        maps(module)


def test_wrap_peft_adapter() -> None:
    peft = pytest.importorskip("peft")
    module = vit()
    config = peft.LoraConfig(r=2, target_modules=["qkv", "proj"], init_lora_weights=False)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(module, config).double().eval()
    merged = copy.deepcopy(adapted).merge_and_unload()
    for method in ("gradtoken", "gae"):
        actual, expected = maps(adapted, method), maps(merged, method)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-8)
    with torch.no_grad():
        torch.testing.assert_close(adapted(images()), merged(images()))
    assert float((maps(merged) - maps(vit())).abs().max()) > 0


def test_wrap_rejects_offloaded_parameters() -> None:
    accelerate = pytest.importorskip("accelerate")
    module = accelerate.cpu_offload(vit(), execution_device=torch.device("cpu"))
    with pytest.raises(ModelError, match=r"parameters without data.*accelerate offloads them"):
        maps(module)


def timm_wrapper() -> nn.Module:
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    if "model_args" not in inspect.signature(TimmWrapperConfig.__init__).parameters:
        pytest.skip("this version of transformers builds timm's models at full size only")
    config = TimmWrapperConfig(
        architecture="vit_tiny_patch16_224",
        model_args={"img_size": 64, "depth": 3},
        num_labels=10,
        id2label={index: f"kind {index}" for index in range(10)},
    )
    return own.seeded(lambda: TimmWrapperForImageClassification(config))


def test_wrap_timm_wrapper_of_transformers() -> None:
    wrapper = timm_wrapper()
    model = gradtoken.wrap(wrapper)
    assert (model.anatomy.readout, len(model.anatomy.blocks)) == ("class token", 3)
    assert list(model.labels)[:2] == ["kind 0", "kind 1"]
    actual = gradtoken.explain(model, images(2), [A, B])
    torch.testing.assert_close(actual.tokens, maps(wrapper.timm_model))


def test_load_timm_wrapper_folder(tmp_path: object) -> None:
    timm_wrapper().float().save_pretrained(tmp_path)
    model = gradtoken.load(f"hf/{tmp_path}")
    assert gradtoken.explain(model, images().float(), A).tokens.shape == (1, 1, 4, 4)


def test_entry_points_leave_parameters_and_buffers_unchanged() -> None:
    """A module in training mode, with statistics that a forward in that mode would change."""
    from gradtoken.checking import check
    from gradtoken.metrics import cascading_randomisation

    module = own.BehindBatchNorm().train()
    state = copy.deepcopy(module.state_dict())
    before = Snapshot(module)
    model = wrap(module)
    before.check(module)
    model(images())
    gradtoken.explain(model, images(), A)
    next(gradtoken.explain_each(model, images(), A))
    for name, options in METHODS.items():
        gradtoken.explain(model, images(), A, method=name, **options)
    check(model, ["gradtoken", "occlusion"])

    def explained(one: object, x: Tensor) -> Tensor:
        return gradtoken.explain(one, x, A).tokens[:, 0].flatten(1)

    cascading_randomisation(model, images(), explained)
    before.check(module)
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_wrap_reads_labels_and_preprocessing_of_timm() -> None:
    model = gradtoken.wrap(random_timm(NAME))
    assert model.labels.find("tabby") == 281
    assert model.labels[1] == "goldfish, Carassius auratus"
    config = timm.data.resolve_data_config({}, model=model.module)
    assert model.preprocess.mean == tuple(config["mean"])


def test_wrap_with_own_preprocess_labels_and_layout(model: Model) -> None:
    mine = gradtoken.wrap(
        tiny_vit(),
        preprocess=model.preprocess.transform,
        labels=list("abcdefghij"),
        layout=gradtoken.TokenLayout(patch=(8, 8), prefix=1, grid=(8, 8)),
    )
    assert gradtoken.explain(mine, Image.new("RGB", (9, 9)), "C").labels == [["c"]]
    with pytest.raises(ModelError, match="3 labels were given for the 10 classes"):
        gradtoken.wrap(tiny_vit(), labels=["a", "b", "c"])
    with pytest.raises(ModelError, match=r"made 65 tokens of a 64x64 input.*a 4x4 grid"):
        gradtoken.wrap(tiny_vit(), layout=gradtoken.TokenLayout(patch=(16, 16)))


def test_wrap_module_with_new_head() -> None:
    module = random_timm(NAME)
    module.head = nn.Linear(192, 7)
    image = Image.new("RGB", (30, 30), "teal")
    actual = gradtoken.explain(gradtoken.wrap(module), image, 3)
    assert actual.labels == [["class 3"]]
    named = gradtoken.wrap(module, labels=list("abcdefg"))
    assert gradtoken.explain(named, image, "d").labels == [["d"]]
    wrapped = gradtoken.wrap(random_timm(NAME))
    wrapped.module.head = nn.Linear(192, 7)
    with pytest.raises(ModelError, match="returned 7 logits but has 1000 labels"):
        gradtoken.explain(wrapped, image)


def test_wrap_compiled_module_takes_original() -> None:
    module = tiny_vit()
    model = gradtoken.wrap(torch.compile(module))
    assert model.module is module


def test_wrap_rejects_module_built_in_inference_mode() -> None:
    with torch.inference_mode():
        module = tiny_vit()
    with pytest.raises(ModelError, match=r"built inside torch.inference_mode"):
        gradtoken.explain(gradtoken.wrap(module), images_for((64, 64)), 1)


def test_wrap_rejects_other_objects_and_headless_modules() -> None:
    with pytest.raises(ModelError, match="needs a torch module, it got str"):
        gradtoken.wrap("demo")
    with pytest.raises(ModelError, match="no classification head"):
        gradtoken.wrap(tiny_vit(num_classes=0))
    scripted = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(ModelError, match="scripted module"):
        gradtoken.wrap(scripted)


@pytest.mark.parametrize("pool", ["max", "avgmax", ""])
def test_wrap_rejects_pooling_without_readout(pool: str) -> None:
    with pytest.raises(ModelError, match=f"global_pool='{pool}', which is no one readout"):
        gradtoken.wrap(tiny_vit(class_token=False, global_pool=pool))
