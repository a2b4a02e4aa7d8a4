"""The networks, written from the published facts, as plain functions of a dict of tensors.

Images at every interface are RGB, 0-255, NCHW. `mutate` names a deliberate mistake; a parity test
must notice each of them.
"""

import math

import torch
import torch.nn.functional as F

import precision

MUTATIONS = (
    "pool-floor norm-first alpha-not-divided no-groups rgb pad-symmetric norm-epsilon no-skip "
    "branches-swapped"
).split()
MEAN_BGR = (104.0, 117.0, 123.0)
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)
SLOPE = 0.3

CAFFENET_TAPS = (
    "conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 conv4 relu4 "
    "conv5 relu5 pool5 fc6 relu6 fc7 relu7 fc8"
).split()
ALEXNET_TAPS = [t for t in CAFFENET_TAPS if not t.startswith("norm")]

CAFFENET_SHAPES = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}
VIDEONET_MEAN_BGR = (96.6, 102.8, 108.0)
VIDEONET_TAPS = [t for t in CAFFENET_TAPS if t != "fc8"]
VIDEONET_SHAPES = {k: s for k, s in CAFFENET_SHAPES.items() if k != "fc8"} | {"fc7": (1024, 4096)}
ALEXNET_SHAPES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
    "classifier.1": (4096, 9216),
    "classifier.4": (4096, 4096),
    "classifier.6": (1000, 4096),
}


def relu(x):
    return F.relu(x)


def lrelu(x):
    """max(x, 0) + 0.3 min(x, 0), section 3.1 of the paper."""
    return F.leaky_relu(x, SLOPE)


def max_pool(x, ceil):
    return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=ceil)


def per_channel(values):
    return torch.tensor(values).view(1, 3, 1, 1)


def to_caffe(rgb, mutate=None):
    """RGB 0-255 -> BGR minus the mean."""
    return (rgb if mutate == "rgb" else rgb.flip(1)) - per_channel(MEAN_BGR)


def from_caffe(bgr, mutate=None):
    """BGR minus the mean -> RGB 0-255, not clipped."""
    images = bgr + per_channel(MEAN_BGR)
    return images if mutate == "rgb" else images.flip(1)


# --- CaffeNet (bvlc_reference_caffenet) ----------------------------------------------------


def lrn(x, mutate=None):
    """Across 5 channels, k = 1, beta = 0.75; Caffe and PyTorch both divide alpha by n."""
    alpha = 5e-4 if mutate == "alpha-not-divided" else 1e-4
    return F.local_response_norm(x, size=5, alpha=alpha, beta=0.75, k=1.0)


def videonet(w, rgb, taps, mutate=None):
    """Wang & Gupta's: CaffeNet's layers but for a narrower fc7 and no fc8, and its own mean."""
    images = (rgb if mutate == "rgb" else rgb.flip(1)) - per_channel(VIDEONET_MEAN_BGR)
    return caffenet_layers(w, images, taps, mutate)


def caffenet(w, rgb, taps, mutate=None):
    """Activations at `taps`, a dict; stops after the last one."""
    return caffenet_layers(w, to_caffe(rgb, mutate), taps, mutate)


def caffenet_layers(w, images, taps, mutate):
    found = {}

    def at(name, value):
        if name in taps:
            found[name] = value
        return value

    def conv(name, x, stride=1, padding=0, groups=1):
        weight = w[name + ".weight"]
        if mutate == "no-groups" and groups == 2:
            weight, groups = torch.cat([weight, weight], dim=1), 1
        return at(name, F.conv2d(x, weight, w[name + ".bias"], stride, padding, groups=groups))

    def pool_and_norm(i, x):
        def pool(x):
            return at(f"pool{i}", max_pool(x, ceil=mutate != "pool-floor"))

        def norm(x):
            return at(f"norm{i}", lrn(x, mutate))

        return pool(norm(x)) if mutate == "norm-first" else norm(pool(x))

    def layers():
        x = conv("conv1", images, stride=4)
        yield
        x = pool_and_norm(1, at("relu1", relu(x)))
        yield
        x = conv("conv2", x, padding=2, groups=2)
        yield
        x = pool_and_norm(2, at("relu2", relu(x)))
        yield
        x = at("relu3", relu(conv("conv3", x, padding=1)))
        yield
        x = at("relu4", relu(conv("conv4", x, padding=1, groups=2)))
        yield
        x = at("relu5", relu(conv("conv5", x, padding=1, groups=2)))
        yield
        x = at("pool5", max_pool(x, ceil=mutate != "pool-floor"))
        yield
        for i in (6, 7):
            x = at(f"fc{i}", F.linear(x.flatten(1), w[f"fc{i}.weight"], w[f"fc{i}.bias"]))
            yield
            x = at(f"relu{i}", relu(x))
            yield
        at("fc8", F.linear(x, w["fc8.weight"], w["fc8.bias"]))

    for _ in layers():
        if len(found) == len(taps):
            break
    return found


# --- torchvision's AlexNet -----------------------------------------------------------------


def alexnet(w, rgb, taps, mutate=None):
    """Activations at `taps`, a dict; stops after the last one. Dropout is off (eval)."""
    if mutate == "rgb":  # the mistake here is to hand over BGR
        rgb = rgb.flip(1)
    x = (rgb / 255.0 - per_channel(IMAGENET_MEAN_RGB)) / per_channel(IMAGENET_STD_RGB)
    found = {}
    convolutions = ((0, 4, 2, True), (3, 1, 2, True), (6, 1, 1, False), (8, 1, 1, False), (10, 1, 1, True))

    def steps(x):
        for i, (index, stride, padding, pooled) in enumerate(convolutions, start=1):
            key = f"features.{index}"
            x = F.conv2d(x, w[key + ".weight"], w[key + ".bias"], stride, padding)
            yield f"conv{i}", x
            x = relu(x)
            yield f"relu{i}", x
            if pooled:
                x = max_pool(x, ceil=False)
                yield f"pool{i}", x
        x = F.adaptive_avg_pool2d(x, (6, 6)).flatten(1)
        for i, key in ((6, "classifier.1"), (7, "classifier.4")):
            x = F.linear(x, w[key + ".weight"], w[key + ".bias"])
            yield f"fc{i}", x
            x = relu(x)
            yield f"relu{i}", x
        yield "fc8", F.linear(x, w["classifier.6.weight"], w["classifier.6.bias"])

    for name, x in steps(x):
        if name in taps:
            found[name] = x
        if len(found) == len(taps):
            break
    return found


# --- Generators ----------------------------------------------------------------------------

# name, input and output channels, kernel, stride; the size it takes. All are transposed.
TRUNK = (
    ("deconv5", 256, 256, 4, 2, 4),
    ("conv5_1", 256, 512, 3, 1, 8),
    ("deconv4", 512, 256, 4, 2, 8),
    ("conv4_1", 256, 256, 3, 1, 16),
    ("deconv3", 256, 128, 4, 2, 16),
    ("conv3_1", 128, 128, 3, 1, 32),
    ("deconv2", 128, 64, 4, 2, 32),
    ("deconv1", 64, 32, 4, 2, 64),
    ("deconv0", 32, 3, 4, 2, 128),
)
FRONT_WIDTH = {4: 512, 8: 512, 16: 256, 32: 128, 64: 64}
# Times the generator's hidden channels: each case sets its own.
WIDTH = 1.0


def hidden(channels):
    return max(8, math.floor(channels * WIDTH / 8 + 0.5) * 8)


def generator_plan(features, crop):
    """(front, trunk, out): layers as (name, in, out, kernel, stride, padding), and the raw size.

    `features` is (n,) for a vector or (channels, size) for maps.
    """
    stages = math.ceil(math.log2(crop / 4))
    out = 4 * 2**stages
    if len(features) == 1:
        entry, width = 4, hidden(256)
        fc = 16 * width
        front = [("defc7", features[0], fc), ("defc6", fc, fc), ("defc5", fc, fc)]
    else:
        channels, size = features
        entry = 4 if size <= 6 else 2 ** math.ceil(math.log2(size))
        width = hidden(FRONT_WIDTH[entry])
        kernel = next(
            k for k in range(2, 99) if (entry - size + k - 1) % 2 == 0 and entry - size + k - 1 >= 0
        )
        padding = (entry - size + kernel - 1) // 2
        front = [
            ("Rconv6", channels, width, 3, 1, 1),
            ("Rconv7", width, width, 3, 1, 1),
            ("Rconv8", width, width, kernel, 1, padding),
        ]
    if entry >= out:
        raise SystemExit(f"features enter at {entry} pixels but crop {crop} needs only {out}")
    trunk = []
    # What runs at sizes in [entry, out/2) is kept; the stage that would make `out` is deconv0.
    for name, inputs, outputs, kernel, stride, takes in TRUNK:
        if takes < entry or (takes == entry and not trunk and stride == 1):
            continue
        inputs, outputs = hidden(inputs), hidden(outputs)
        if not trunk:
            inputs = width
        if stride == 2 and takes * 2 == out:
            trunk.append(("deconv0", inputs, 3, 4, 2, 1))
            break
        trunk.append((name, inputs, outputs, kernel, stride, 1))
    return front, trunk, out


def generator_shapes(features, crop):
    front, trunk, _ = generator_plan(features, crop)
    shapes = {}
    for layer in front:  # ordinary convolutions or fully connected: (out, in, ...)
        name, inputs, outputs = layer[:3]
        shapes[name] = (outputs, inputs) + ((layer[3],) * 2 if len(layer) > 3 else ())
    for name, inputs, outputs, kernel, _, _ in trunk:  # transposed: (in, out, k, k)
        shapes[name] = (inputs, outputs, kernel, kernel)
    return shapes


def generator_biases(features, crop):
    front, trunk, _ = generator_plan(features, crop)
    return {layer[0]: layer[2] for layer in front + trunk}


def generator(w, y, features, crop, mutate=None):
    """Features -> RGB 0-255, not clipped, cropped to `crop`."""
    front, trunk, out = generator_plan(features, crop)
    x = y
    for layer in front:
        weight, bias = w[layer[0] + ".weight"], w[layer[0] + ".bias"]
        if len(layer) == 3:
            x = lrelu(F.linear(x, weight, bias))
        else:
            x = lrelu(F.conv2d(x, weight, bias, padding=layer[5]))
    if len(features) == 1:
        x = x.view(x.shape[0], -1, 4, 4)
    for name, _, _, _, stride, padding in trunk:
        # A trunk bias is stored but never learns: no gradient reaches it.
        x = F.conv_transpose2d(x, w[name + ".weight"], w[name + ".bias"].detach(), stride, padding)
        if name != "deconv0":
            x = lrelu(x)
    assert x.shape[1:] == (3, out, out), x.shape
    off = (out - crop) // 2
    return from_caffe(x[:, :, off : off + crop, off : off + crop], mutate)


# --- Discriminator -------------------------------------------------------------------------

DISCRIMINATOR = (
    ("Dconv1", 32, 7, 4),
    ("Dconv2", 64, 5, 1),
    ("Dconv3", 128, 3, 2),
    ("Dconv4", 256, 3, 1),
    ("Dconv5", 256, 3, 2),
)


def discriminator_plan(crop):
    """(layers as (name, in, out, kernel, stride), size that remains before the average)."""
    for dropped in ((), ("Dconv5",), ("Dconv5", "Dconv3")):
        layers, channels, size = [], 3, crop
        for name, outputs, kernel, stride in DISCRIMINATOR:
            if name not in dropped:
                layers.append((name, channels, outputs, kernel, stride))
                channels, size = outputs, (size - kernel) // stride + 1
        if size >= 3:
            return layers, size
    raise SystemExit(f"crop {crop} is too small for the discriminator")


def discriminator_shapes(crop, features=None):
    layers, _ = discriminator_plan(crop)
    shapes = {name: (outputs, inputs, k, k) for name, inputs, outputs, k, _ in layers}
    pooled = layers[-1][2]
    if features is not None:
        shapes["Dfeat1"] = (1024, math.prod(features) * (features[1] if len(features) == 2 else 1))
        shapes["Dfeat2"] = (512, 1024)
        pooled += 512
    shapes["Dfc6"] = (512, pooled)
    shapes["Dfc7"] = (2, 512)
    return shapes


def discriminator(w, rgb, crop, feat=None, masks=None, mutate=None):
    """Logits [N, 2], 0 = real. `masks`: None for eval, else a list that gets the dropout masks.

    Dropout draws from torch's generator: before Dfc6 first, then before Dfc7.
    """
    x = to_caffe(rgb, mutate)
    layers, _ = discriminator_plan(crop)
    for name, _, _, _, stride in layers:
        x = relu(F.conv2d(x, w[name + ".weight"], w[name + ".bias"], stride))
    x = x.mean(dim=(2, 3))
    if feat is not None:
        feat = feat.flatten(1)
        for name in ("Dfeat1", "Dfeat2"):
            feat = relu(F.linear(feat, w[name + ".weight"], w[name + ".bias"]))
        x = torch.cat([x, feat], dim=1)
    x = relu(F.linear(drop(x, masks), w["Dfc6.weight"], w["Dfc6.bias"]))
    return F.linear(drop(x, masks), w["Dfc7.weight"], w["Dfc7.bias"])


def discriminator_features(w, rgb, crop, tap):
    """A convolution of the discriminator after its rectifier, or Dpool5: the mean over positions."""
    x = to_caffe(rgb, None)
    for name, _, _, _, stride in discriminator_plan(crop)[0]:
        x = relu(F.conv2d(x, w[name + ".weight"], w[name + ".bias"], stride))
        if name == tap:
            return x
    assert tap == "Dpool5"
    return x.mean(dim=(2, 3))


def drop(x, masks):
    """Half of the values become 0, the others double. The mask is what libtorch's dropout draws."""
    if masks is None:
        return x
    mask = precision.lift(torch.empty(x.shape, dtype=torch.float32).bernoulli_(0.5).div_(0.5))
    masks.append(mask)
    return x * mask
