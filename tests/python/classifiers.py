"""torchvision's VGG16, EfficientNet-Lite0 and SqueezeNet 1.1, from their papers, as plain functions.

Images are RGB, 0-255, NCHW. Activations at `taps` come as a dict.
"""

import math

import torch
import torch.nn.functional as F

import nets

# --- VGG16 (Simonyan & Zisserman 2014, table 1, column D) ----------------------------------

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG16_FC = (("fc6", "classifier.0"), ("fc7", "classifier.3"), ("fc8", "classifier.6"))


def vgg16_convolutions():
    """(name, index in torchvision's `features`, input and output channels, last of its stage)."""
    index, channels = 0, 3
    for i, stage in enumerate(VGG16_STAGES, start=1):
        for j, outputs in enumerate(stage, start=1):
            yield f"{i}_{j}", index, channels, outputs, j == len(stage)
            index, channels = index + 2, outputs  # the convolution and its ReLU
        index += 1  # the pool


VGG16_SHAPES = {f"features.{n}": (o, i, 3, 3) for _, n, i, o, _ in vgg16_convolutions()}
VGG16_SHAPES |= {
    "classifier.0": (4096, 512 * 7 * 7),
    "classifier.3": (4096, 4096),
    "classifier.6": (1000, 4096),
}
VGG16_TAPS = []
for _name, _, _, _, _last in vgg16_convolutions():
    VGG16_TAPS += [f"conv{_name}", f"relu{_name}"] + ([f"pool{_name[0]}"] if _last else [])
VGG16_TAPS += "fc6 relu6 fc7 relu7 fc8".split()


def vgg16(w, rgb, taps, mutate=None):
    """Dropout is off (eval)."""
    if mutate == "rgb":  # the mistake here is to hand over BGR
        rgb = rgb.flip(1)
    x = (rgb / 255.0 - nets.per_channel(nets.IMAGENET_MEAN_RGB)) / nets.per_channel(nets.IMAGENET_STD_RGB)

    def steps(x):
        for name, index, _, _, last in vgg16_convolutions():
            key = f"features.{index}"
            x = F.conv2d(x, w[key + ".weight"], w[key + ".bias"], padding=1)
            yield f"conv{name}", x
            x = nets.relu(x)
            yield f"relu{name}", x
            if last:
                x = F.max_pool2d(x, 2, 2)
                yield f"pool{name[0]}", x
        x = F.adaptive_avg_pool2d(x, (7, 7)).flatten(1)
        for name, key in VGG16_FC:
            x = F.linear(x, w[key + ".weight"], w[key + ".bias"])
            yield name, x
            if name != "fc8":
                x = nets.relu(x)
                yield name.replace("fc", "relu"), x

    return collect(steps(x), taps)


def collect(steps, taps):
    found = {}
    for name, x in steps:
        if name in taps:
            found[name] = x
        if len(found) == len(taps):
            break
    return found


# --- EfficientNet-Lite0 (Tan & Le 2019, table 1, without squeeze-excitation) ---------------

# repeats, kernel, stride of the first, expansion, input and output channels
EFFICIENTNET_LITE0_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


def efficientnet_lite0_blocks():
    """(index, kernel, stride, expansion, input and output channels) of each block."""
    index = 0
    for repeats, kernel, stride, expansion, inputs, outputs in EFFICIENTNET_LITE0_STAGES:
        for i in range(repeats):
            first = i == 0
            yield index, kernel, stride if first else 1, expansion, inputs if first else outputs, outputs
            index += 1


EFFICIENTNET_LITE0_TAPS = (
    ["stem"] + [f"block{b[0]}" for b in efficientnet_lite0_blocks()] + ["head", "pooled", "logits"]
)


def _shapes():
    yield "_conv_stem", "_bn0", (32, 3, 3, 3)
    for index, kernel, _, expansion, inputs, outputs in efficientnet_lite0_blocks():
        key, inside = f"_blocks.{index}.", inputs * expansion
        if expansion != 1:
            yield key + "_expand_conv", key + "_bn0", (inside, inputs, 1, 1)
        yield key + "_depthwise_conv", key + "_bn1", (inside, 1, kernel, kernel)
        yield key + "_project_conv", key + "_bn2", (outputs, inside, 1, 1)
    yield "_conv_head", "_bn1", (1280, 320, 1, 1)


EFFICIENTNET_LITE0_SHAPES = {conv: shape for conv, _, shape in _shapes()} | {"_fc": (1000, 1280)}


def efficientnet_lite0_weights(draw, shapes):
    """Convolutions without biases; statistics as far from 0 and 1 as trained ones.

    What a block adds is half as large as He's rule would make it: otherwise most values of a deep
    layer lie beyond ReLU6's bounds, and rounding grows a hundredfold on the way there.
    """
    w = {}
    for conv, norm, shape in _shapes():
        fan_in = math.prod(shape[1:])
        gain = 0.5 if conv.endswith("_project_conv") else 1.0
        w[conv + ".weight"] = draw.normal(shape, gain * math.sqrt(2.0 / fan_in))
        n = (shape[0],)
        w[norm + ".weight"] = 1 + draw.normal(n, 0.2)
        w[norm + ".bias"] = draw.normal(n, 0.5)
        w[norm + ".running_mean"] = draw.normal(n, 0.5)
        w[norm + ".running_var"] = 0.2 + draw.normal(n).abs()
    if "_fc" in shapes:
        w |= draw.weights({"_fc": shapes["_fc"]})
    return w


def efficientnet_lite0(w, rgb, taps, mutate=None):
    """Batch normalisation with its stored statistics, no dropout (eval)."""

    def same(x, weight, stride, groups):
        """TensorFlow's SAME: ceil(n / stride) outputs; the odd pixel of padding comes last."""
        pads = []
        for n, k in ((x.shape[3], weight.shape[3]), (x.shape[2], weight.shape[2])):
            total = max((math.ceil(n / stride) - 1) * stride + k - n, 0)
            pads += [total // 2, total - total // 2]
            if mutate == "pad-symmetric":
                pads[-2:] = [k // 2, k // 2]
        return F.conv2d(F.pad(x, pads), weight, None, stride, groups=groups)

    def conv_norm(x, conv, norm, stride=1, groups=1):
        x = same(x, w[conv + ".weight"], stride, groups)
        mean, var = w[norm + ".running_mean"], w[norm + ".running_var"]
        eps = 1e-5 if mutate == "norm-epsilon" else 1e-3
        return F.batch_norm(x, mean, var, w[norm + ".weight"], w[norm + ".bias"], eps=eps)

    def relu6(x):
        return F.relu6(x)

    def steps(x):
        x = relu6(conv_norm(x, "_conv_stem", "_bn0", 2))
        yield "stem", x
        for index, _, stride, expansion, inputs, outputs in efficientnet_lite0_blocks():
            key, y = f"_blocks.{index}.", x
            if expansion != 1:
                y = relu6(conv_norm(y, key + "_expand_conv", key + "_bn0"))
            y = relu6(conv_norm(y, key + "_depthwise_conv", key + "_bn1", stride, y.shape[1]))
            y = conv_norm(y, key + "_project_conv", key + "_bn2")
            x = x + y if stride == 1 and inputs == outputs and mutate != "no-skip" else y
            yield f"block{index}", x
        x = relu6(conv_norm(x, "_conv_head", "_bn1"))
        yield "head", x
        x = x.mean(dim=(2, 3))
        yield "pooled", x
        yield "logits", F.linear(x, w["_fc.weight"], w["_fc.bias"])

    rgb = rgb.flip(1) if mutate == "rgb" else rgb
    return collect(steps((rgb - 127.0) / 128.0), taps)


# --- SqueezeNet 1.1 (Iandola et al. 2016, as released for Caffe) ---------------------------

# number, input channels, channels of the squeeze convolution and of each expand convolution
SQUEEZENET_FIRES = (
    (2, 64, 16, 64),
    (3, 128, 16, 64),
    (4, 128, 32, 128),
    (5, 256, 32, 128),
    (6, 256, 48, 192),
    (7, 384, 48, 192),
    (8, 384, 64, 256),
    (9, 512, 64, 256),
)
SQUEEZENET_POOLED = (3, 5)
SQUEEZENET_TAPS = (
    "conv1 relu1 pool1 fire2 fire3 pool3 fire4 fire5 pool5 fire6 fire7 fire8 fire9 conv10 relu10 logits"
).split()
SQUEEZENET_SHAPES = {"conv1": (64, 3, 3, 3)}
for _number, _inputs, _squeeze, _expand in SQUEEZENET_FIRES:
    SQUEEZENET_SHAPES |= {
        f"fire{_number}/squeeze1x1": (_squeeze, _inputs, 1, 1),
        f"fire{_number}/expand1x1": (_expand, _squeeze, 1, 1),
        f"fire{_number}/expand3x3": (_expand, _squeeze, 3, 3),
    }
SQUEEZENET_SHAPES["conv10"] = (1000, 512, 1, 1)


def squeezenet(w, rgb, taps, mutate=None):
    """Caffe's images and pools; dropout is off (eval)."""

    def conv(name, x, stride=1, padding=0):
        return F.conv2d(x, w[name + ".weight"], w[name + ".bias"], stride, padding)

    def pool(x):
        return nets.max_pool(x, ceil=mutate != "pool-floor")

    def fire(name, x):
        x = nets.relu(conv(name + "/squeeze1x1", x))
        expanded = [
            nets.relu(conv(name + "/expand1x1", x)),
            nets.relu(conv(name + "/expand3x3", x, padding=1)),
        ]
        return torch.cat(expanded[::-1] if mutate == "branches-swapped" else expanded, dim=1)

    def steps(x):
        x = conv("conv1", x, stride=2)
        yield "conv1", x
        x = nets.relu(x)
        yield "relu1", x
        x = pool(x)
        yield "pool1", x
        for number, *_ in SQUEEZENET_FIRES:
            x = fire(f"fire{number}", x)
            yield f"fire{number}", x
            if number in SQUEEZENET_POOLED:
                x = pool(x)
                yield f"pool{number}", x
        x = conv("conv10", x)
        yield "conv10", x
        x = nets.relu(x)
        yield "relu10", x
        yield "logits", x.mean(dim=(2, 3))

    return collect(steps(nets.to_caffe(rgb, mutate)), taps)
