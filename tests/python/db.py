"""The generator of Dosovitskiy & Brox, "Inverting Visual Representations with Convolutional
Networks" (CVPR 2016), as the paper describes it: unpooling (each value into the upper left of a
2x2 block, zeros elsewhere) followed by an ordinary 5x5 convolution, leaky ReLU 0.2 in between.

Its weights are stored as those of the transposed convolution that does both: (in, out, k, k),
the kernel turned by 180 degrees.
"""

import torch
import torch.nn.functional as F

import nets

KERNEL = 5
SLOPE = 0.2


def plan(features, crop):
    front, trunk, out = nets.generator_plan(features, crop)
    return front, [layer for layer in trunk if layer[0].startswith("deconv")], out


def _chain(features, crop):
    """(name, in, out, kernel or None, padding); inputs follow the layer before, where some are left out."""
    front, trunk, out = plan(features, crop)
    layers = [(l[0], l[1], l[2], *((l[3], l[5]) if len(l) > 3 else (None, 0))) for l in front]
    channels = 256 if len(features) == 1 else layers[-1][2]
    for name, _, outputs, *_ in trunk:
        layers.append((name, channels, outputs, KERNEL, 2))
        channels = outputs
    return layers, out


def shapes(features, crop):
    found = {}
    for name, inputs, outputs, kernel, _ in _chain(features, crop)[0]:
        if kernel is None:
            found[name] = (outputs, inputs)
        elif name.startswith("deconv"):
            found[name] = (inputs, outputs, kernel, kernel)
        else:
            found[name] = (outputs, inputs, kernel, kernel)
    return found


def biases(features, crop):
    return {layer[0]: layer[2] for layer in _chain(features, crop)[0]}


def lrelu(x):
    return torch.where(x > 0, x, SLOPE * x)


def unpool(x):
    n, c, h, w = x.shape
    corner = torch.zeros(2, 2)
    corner[0, 0] = 1
    return (x[:, :, :, None, :, None] * corner[None, None, None, :, None, :]).reshape(n, c, 2 * h, 2 * w)


def generator(w, y, features, crop):
    """Features -> RGB 0-255, not clipped, cropped to `crop`."""
    layers, out = _chain(features, crop)
    x = y
    for name, _, _, kernel, padding in layers:
        weight, bias = w[name + ".weight"], w[name + ".bias"]
        if kernel is None:
            x = F.linear(x, weight, bias)
        elif name.startswith("deconv"):
            x = x.view(-1, 256, 4, 4) if x.dim() == 2 else x
            x = F.conv2d(unpool(x), weight.transpose(0, 1).flip(2, 3), bias, padding=padding)
        else:
            x = F.conv2d(x, weight, bias, padding=padding)
        if name != "deconv0":
            x = lrelu(x)
    assert x.shape[1:] == (3, out, out), x.shape
    off = (out - crop) // 2
    return nets.from_caffe(x[:, :, off : off + crop, off : off + crop], None)
