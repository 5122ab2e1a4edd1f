"""Other packages' maps of one class, each on the same unmodified timm ViT.

    pip install grad-cam captum einops && pip install --no-deps torchcam torchxai-explain txv

Each is used as its own documentation says. txv and torchcam's LeGrad read a model class of their
own, of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import Tensor, nn

Explain = Callable[[], object]


def peers(
    module: nn.Module,
    images: Tensor,
    target: int,
    in_batches: bool,
    only: Collection[str] | None = None,
) -> dict[str, Explain | str]:
    """A call for each package and method, or why it does not run.

    Args:
        in_batches: only those that take a batch.
        only: these; None for all.
    """
    runs: dict[str, Explain | str] = {}
    for name, make in _MAKERS.items():
        if (in_batches and name in ONE_IMAGE) or (only is not None and name not in only):
            continue
        try:
            run = make(module, images, target)
            run()
            runs[name] = run
        except Exception as error:  # other packages fail as they like; the table says how
            runs[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        finally:
            module.zero_grad(set_to_none=True)
    return runs


def _side(images: Tensor) -> int:
    return images.shape[-1] // 16


def _map(tensor: Tensor, side: int) -> Tensor:
    return tensor[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)


def _grad_cam(module: nn.Module, images: Tensor, target: int) -> Explain:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layers, reshape = [module.blocks[-1].norm1], lambda t: _map(t, _side(images))
    targets = [ClassifierOutputTarget(target)] * len(images)

    def run() -> object:
        with GradCAM(module, layers, reshape_transform=reshape) as cam:
            return cam(images, targets)

    return run


def _captum_saliency(module: nn.Module, images: Tensor, target: int) -> Explain:
    from captum.attr import Saliency

    method = Saliency(module)
    return lambda: method.attribute(images.clone().requires_grad_(), target)


def _captum_input_x_gradient(module: nn.Module, images: Tensor, target: int) -> Explain:
    from captum.attr import InputXGradient

    method = InputXGradient(module)
    return lambda: method.attribute(images.clone().requires_grad_(), target)


def _captum_layer(module: nn.Module, images: Tensor, target: int) -> Explain:
    from captum.attr import LayerGradientXActivation

    method = LayerGradientXActivation(module, module.blocks[-1].norm1)
    return lambda: method.attribute(images, target)


def _torchcam(kind: str) -> Callable[[nn.Module, Tensor, int], Explain]:
    def make(module: nn.Module, images: Tensor, target: int) -> Explain:
        from torchcam import methods

        layer, reshape = module.blocks[-1].norm1, lambda t: _map(t, _side(images))

        def run() -> object:
            cam = getattr(methods, kind)(module, layer, reshape_transform=reshape)
            with cam as extractor:
                return extractor(target, module(images))

        return run

    return make


def _torchcam_legrad(module: nn.Module, images: Tensor, target: int) -> Explain:
    from torchcam.methods import LeGrad
    from torchvision.models import vit_b_16

    if module.embed_dim != 768:
        raise ValueError("reads torchvision's VisionTransformer, which has no model of this size")
    own = vit_b_16().eval()

    def run() -> object:
        with LeGrad(own, list(own.encoder.layers)) as extractor:
            return extractor(target, own(images))

    return run


def _torchxai(module: nn.Module, images: Tensor, target: int) -> Explain:
    from torchxai.methods.transformer_attribution import TransformerAttribution

    method = TransformerAttribution(module)
    return lambda: [method(image[None], target_class=target) for image in images]


def _txv(module: nn.Module, images: Tensor, target: int) -> Explain:
    from txv.exp import GradSAM
    from txv.vit import vit_base_patch16_224, vit_small_patch16_224

    sizes = {768: vit_base_patch16_224, 384: vit_small_patch16_224}
    if module.embed_dim not in sizes:
        raise ValueError("has no model of this size")
    own = sizes[module.embed_dim](pretrained=False).eval()
    method = GradSAM(own)
    return lambda: [method.explain(image[None], index=target) for image in images]


_MAKERS: dict[str, Callable[[nn.Module, Tensor, int], Explain]] = {
    "grad-cam: GradCAM": _grad_cam,
    "captum: Saliency": _captum_saliency,
    "captum: InputXGradient": _captum_input_x_gradient,
    "captum: LayerGradientXActivation, last block": _captum_layer,
    "torchcam: GradCAM": _torchcam("GradCAM"),
    "torchcam: LayerCAM": _torchcam("LayerCAM"),
    "torchcam: LeGrad, all blocks": _torchcam_legrad,
    "torchxai-explain: TransformerAttribution": _torchxai,
    "txv: GradSAM": _txv,
}

ONE_IMAGE = frozenset(
    {
        "torchcam: LeGrad, all blocks",
        "torchxai-explain: TransformerAttribution",
        "txv: GradSAM",
    }
)
"""Peers that take no batch, or another model; they are given one image at a time."""

ONE_BLOCK = frozenset(
    {
        "captum: LayerGradientXActivation, last block",
        "torchcam: GradCAM",
        "torchcam: LayerCAM",
    }
)
"""Peers that explain the last block alone, so that nothing before it is differentiated."""

QUICK = frozenset(
    {
        *ONE_BLOCK,
        "captum: Saliency",
        "captum: InputXGradient",
        "torchcam: LeGrad, all blocks",
    }
)
"""The quickest peers, among which the quickest is looked for in many rounds."""
