"""Encoders as the libraries compute them that people run them with: transformers of Hugging Face, and torchvision.

Weights are random. Those of the transformers, which are small, are what `save_pretrained` writes, under the names of that
file; torchvision's are a `state_dict`. Images are RGB, 0-255, NCHW.
"""

import contextlib
import json
import math
import os
import tempfile

import torch
from safetensors.torch import load_file

import nets
from precision import lift

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may come from the network

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
IMAGENET = (nets.IMAGENET_MEAN_RGB, nets.IMAGENET_STD_RGB)

SMALL = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
SMALL_TEXT = dict(
    hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=24,
    max_position_embeddings=8,
)


def dinov2(transformers, sizes):
    config = dict(patch_size=14, layer_norm_eps=1e-6, hidden_act="gelu", qkv_bias=True, layerscale_value=1.0)
    return transformers.Dinov2Model(transformers.Dinov2Config(**config, **sizes))


def dinov2_with_registers(transformers, sizes):
    config = dict(
        patch_size=14, layer_norm_eps=1e-6, hidden_act="gelu", qkv_bias=True, layerscale_value=1.0,
        num_register_tokens=4,
    )
    return transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**config, **sizes))


def clip(transformers, vision, text, projection):
    """Both towers, as the hub's file has them."""
    vision = dict(hidden_act="quick_gelu", layer_norm_eps=1e-5, projection_dim=projection) | vision
    config = transformers.CLIPConfig(
        vision_config=vision, text_config=dict(projection_dim=projection) | text, projection_dim=projection
    )
    return transformers.CLIPModel(config)


def siglip(transformers, vision, text):
    """Both towers."""
    vision = dict(hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6) | vision
    return transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))


DINOV2_SIZES = {
    "small": dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518),
    "base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, image_size=518),
    "large": dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, image_size=518),
}
BASE = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224)


def fill(model, draw):
    """Weights that all matter, of about the size that keeps activations at theirs."""
    state = model.state_dict()
    for name, old in state.items():
        shape = tuple(old.shape)
        if not old.is_floating_point() or not shape:
            continue
        if name.endswith(("lambda1", "layer_scale")):
            new = 0.5 + draw.normal(shape, 0.2)
        elif name.endswith("running_var"):
            new = 0.3 + draw.normal(shape).abs()
        elif name.endswith("bn3.weight"):  # what a block adds stays smaller than what it is added to
            new = 0.5 + draw.normal(shape, 0.1)
        elif any(word in name for word in ("position", "token", "class_embedding", "probe")):
            new = draw.normal(shape, 0.5)
        elif len(shape) == 1:
            new = draw.normal(shape, 0.2) + (1.0 if name.endswith("weight") else 0.0)
        else:
            smooth = any(word in name for word in ("embeddings", "encoder", "head", "projection", ".block."))
            gain = 1.0 if smooth else math.sqrt(2.0)  # a ReLU follows
            new = draw.normal(shape, gain / math.sqrt(math.prod(shape[1:])))
        state[name] = new
    model.load_state_dict(state)


@contextlib.contextmanager
def interpolating_exactly():
    """The library interpolates DINOv2's positions in float32, whatever the type of the model."""
    functional = torch.nn.functional
    own = functional.interpolate
    functional.interpolate = lambda x, *args, **how: own(lift(x), *args, **how)
    try:
        yield
    finally:
        functional.interpolate = own


def images(args, draw):
    """--crop pixels wide, and as high or --rows."""
    x = draw.images(args.batch, args.crop)
    return x[:, :, : args.rows or args.crop].contiguous()


def normalised(rgb, mean, std):
    return (rgb / 255.0 - nets.per_channel(mean)) / nets.per_channel(std)


def record(out, x, found, draw):
    """y/, up/ and gx/ of each tap."""
    out["x"] = x
    for tap, y in found.items():
        up = lift(draw.normal(tuple(y.shape)))
        (gx,) = torch.autograd.grad((y * up).sum(), x, retain_graph=True)
        out.update({f"y/{tap}": y, f"up/{tap}": up, f"gx/{tap}": gx})
    return out


def hooked(modules):
    """What modules put out, by their taps, once they are called."""
    found = {}

    def keep(tap):
        def hook(module, inputs, output):
            found[tap] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [module.register_forward_hook(keep(tap)) for tap, module in modules.items()]
    return found, handles


def vit(args, draw, model, tower, modules, leading, patch, units):
    """`tower` gives the pooled vector and what follows it; `modules` put out tokens."""
    model.eval().float()
    fill(model, draw)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        w = load_file(os.path.join(folder, "model.safetensors"))
    model.to(torch.get_default_dtype())
    x = lift(images(args, draw)).clone().requires_grad_()
    tokens, handles = hooked(modules)
    with interpolating_exactly():
        vectors = tower(normalised(x, *units))
    for handle in handles:
        handle.remove()
    rows, columns = x.shape[2] // patch, x.shape[3] // patch

    def as_map(tap):
        t = tokens[tap][:, leading:]
        return t.transpose(1, 2).reshape(t.shape[0], t.shape[2], rows, columns)

    def plain(y):
        mean, var = y.mean(1, keepdim=True), y.var(1, unbiased=False, keepdim=True)
        return (y - mean) / torch.sqrt(var + 1e-6)

    found = {tap: as_map(tap) for tap in tokens} | vectors
    first, last = as_map("block0"), as_map("block2")
    found["block0+block2"] = first + last
    found["mean(layernorm(block0)+block2)"] = (plain(first) + last) / 2
    found["block1 (all tokens)"] = tokens["block1"].transpose(1, 2).unsqueeze(-1)
    return record({f"w/{k}": v for k, v in w.items()}, x, found, draw), {}


def blocks(layers):
    return {f"block{i}": layer for i, layer in enumerate(layers)}


def dinov2_case(args, draw, build, leading):
    import transformers

    model = build(transformers, SMALL | dict(mlp_ratio=2, image_size=56))
    modules = {"embed": model.embeddings, "norm": model.layernorm} | blocks(model.encoder.layer)

    def tower(x):
        return {"pooled": model(x).pooler_output}

    return vit(args, draw, model, tower, modules, leading, 14, IMAGENET)


def dinov2_small(args, draw):
    return dinov2_case(args, draw, dinov2, 1)


def dinov2_registers(args, draw):
    return dinov2_case(args, draw, dinov2_with_registers, 5)


def clip_case(args, draw):
    import transformers

    vision = SMALL | dict(intermediate_size=64, image_size=32, patch_size=8)
    model = clip(transformers, vision, SMALL_TEXT, 16)
    images = model.vision_model
    modules = {"embed": images.pre_layrnorm} | blocks(images.encoder.layers)

    def tower(x):
        pooled = images(x, interpolate_pos_encoding=True).pooler_output
        return {"pooled": pooled, "projected": model.visual_projection(pooled)}

    return vit(args, draw, model, tower, modules, 1, 8, (CLIP_MEAN, CLIP_STD))


def siglip_case(args, draw):
    import transformers

    vision = SMALL | dict(intermediate_size=64, image_size=32, patch_size=8)
    model = siglip(transformers, vision, SMALL_TEXT)
    images = model.vision_model
    modules = {"embed": images.embeddings, "norm": images.post_layernorm} | blocks(images.encoder.layers)

    def tower(x):
        return {"pooled": images(x, interpolate_pos_encoding=True).pooler_output}

    return vit(args, draw, model, tower, modules, 0, 8, (HALF, HALF))


# --- torchvision -------------------------------------------------------------------------


def convolutional(args, draw, model, modules, prefix=""):
    model.eval().float()
    fill(model, draw)
    w = {prefix + k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}
    model.to(torch.get_default_dtype())
    x = lift(images(args, draw)).clone().requires_grad_()
    found, handles = hooked(modules)
    logits = model(normalised(x, *IMAGENET))
    for handle in handles:
        handle.remove()
    # An average gives maps of one pixel.
    found = {tap: y.flatten(1) if tap in ("pooled", "norm") else y for tap, y in found.items()}
    if not prefix:
        found["logits"] = logits
    return record({f"w/{k}": v for k, v in w.items()}, x, found, draw), {}


def resnet50(args, draw):
    import torchvision

    model = torchvision.models.resnet50(weights=None)
    for module in model.modules():  # or the next one overwrites what a hook has kept
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    modules = {
        "stem": model.relu,
        "pool1": model.maxpool,
        "layer1_0": model.layer1[0],
        "layer2_0": model.layer2[0],
        "layer2_3": model.layer2[3],
        "layer4_2": model.layer4[2],
        "pooled": model.avgpool,
    }
    return convolutional(args, draw, model, modules)


def convnext_tiny(args, draw):
    import torchvision

    model = torchvision.models.convnext_tiny(weights=None)
    modules = {
        "stem": model.features[0],
        "stage1_0": model.features[1][0],
        "down2": model.features[2],
        "stage3_8": model.features[5][8],
        "stage4_2": model.features[7][2],
        "pooled": model.avgpool,
        "norm": model.classifier[0],
    }
    return convolutional(args, draw, model, modules)


VGG19_TAPS = {"conv1_1": 0, "relu1_2": 3, "conv3_4": 16, "relu3_4": 17, "pool4": 27, "conv5_4": 34, "pool5": 36}


def vgg19(args, draw):
    """Its convolutions alone."""
    import torchvision

    model = torchvision.models.vgg19(weights=None).features
    for module in model:
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    return convolutional(args, draw, model, {tap: model[i] for tap, i in VGG19_TAPS.items()}, "features.")


# --- Names and shapes at full size -------------------------------------------------------


def shapes(args, draw):
    """Of the networks' files as they are released; no weight is made."""
    import torchvision
    import transformers
    from transformers.modeling_utils import no_init_weights

    with no_init_weights(), torch.device("meta"):
        all_nets = {
            "clip-vit-base-patch32": clip(transformers, BASE | dict(patch_size=32), {}, 512),
            "siglip-base-patch16-224": siglip(transformers, BASE | dict(patch_size=16), {}),
            "vgg19": torchvision.models.vgg19(weights=None),
            "resnet50": torchvision.models.resnet50(weights=None),
            "convnext-tiny": torchvision.models.convnext_tiny(weights=None),
            "convnext-small": torchvision.models.convnext_small(weights=None),
        }
        for size, sizes in DINOV2_SIZES.items():
            sizes = sizes | dict(mlp_ratio=4)
            all_nets[f"dinov2-{size}"] = dinov2(transformers, sizes)
            all_nets[f"dinov2-with-registers-{size}"] = dinov2_with_registers(transformers, sizes)
    found = {
        name: {k: list(v.shape) for k, v in model.state_dict().items()} for name, model in all_nets.items()
    }
    return {"none": torch.zeros(1)}, {"shapes": json.dumps(found)}


CASES = {
    "encoder-dinov2": dinov2_small,
    "encoder-dinov2-registers": dinov2_registers,
    "encoder-clip": clip_case,
    "encoder-siglip": siglip_case,
    "encoder-resnet50": resnet50,
    "encoder-convnext-tiny": convnext_tiny,
    "encoder-vgg19": vgg19,
    "encoder-shapes": shapes,
}
