"""The names of methods, in a module that imports nothing, so that the shell can complete them."""

GROUP = "gradtoken.methods"
"""The entry-point group in which other packages declare their methods."""

FLOOR = "random"
"""The method that every comparison holds, so that it shows what noise gets."""

BUILT_IN = {
    "gradtoken": "gradtoken:GradToken",
    "agcam": "attention.agcam:AGCAM",
    "attcat": "attention.attcat:AttCAT",
    "attnlrp": "lrp.attnlrp:AttnLRP",
    "beyond-intuition": "attention.beyond_intuition:BeyondIntuition",
    "cdam": "attention.cdam:CDAM",
    "clip-surgery": "attention.clip_surgery:CLIPSurgery",
    "daam": "attention.daam:DynamicAccumulatedAttention",
    "fullgrad-plus": "attention.fullgrad_plus:FullGradPlus",
    "gae": "attention.gae:GenericAttention",
    "gmar": "attention.gmar:GMAR",
    "grad-cam": "attention.grad_cam:GradCAM",
    "grad-eclip": "attention.grad_eclip:GradECLIP",
    "grad-rollout": "attention.grad_rollout:GradientRollout",
    "grad-sam": "attention.grad_sam:GradSAM",
    "gradient-shap": "pixels.gradient_shap:GradientShap",
    "iia": "attention.iia:IteratedIntegratedAttributions",
    "input-x-gradient": "pixels.input_x_gradient:InputXGradient",
    "integrated-gradients": "pixels.integrated_gradients:IntegratedGradients",
    "legrad": "attention.legrad:LeGrad",
    "m2ib": "attention.m2ib:M2IB",
    "occlusion": "pixels.occlusion:Occlusion",
    "partial-lrp": "lrp.partial_lrp:PartialLRP",
    "random": "random_map:RandomMap",
    "raw-attention": "attention.raw_attention:RawAttention",
    "recipro-cam": "attention.recipro_cam:ReciproCAM",
    "rise": "pixels.rise:RISE",
    "rollout": "attention.rollout:AttentionRollout",
    "saliency": "pixels.saliency:Saliency",
    "smoothgrad": "pixels.smoothgrad:SmoothGrad",
    "tam": "attention.tam:TransitionAttention",
    "tokentm": "attention.tokentm:TokenTransformation",
    "transformer-attribution": "lrp.transformer_attribution:TransformerAttribution",
    "vit-cx": "pixels.vit_cx:ViTCX",
}
"""Where each built-in method is, below `gradtoken.attribution`."""
