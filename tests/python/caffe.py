"""Writes networks as Caffe stores them, runs them with OpenCV's DNN module, and keeps what it finds.

    caffe.py caffenet|videonet|generator-fc6|generator-fc8|generator-conv5 FOLDER

FOLDER/new.caffemodel (and, for caffenet, FOLDER/v1.caffemodel of the same weights in the old layer
messages) with net.prototxt beside; FOLDER/NAME.safetensors, for each of them, holds the inputs `x…`
(images RGB 0-255, or features) and OpenCV's outputs, `TAP…` or `y`.

The layers are written down here from the published prototxt files and caffe.proto, not taken from
this project's tables.
"""

import struct
import sys
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file

CAFFENET_MEAN, VIDEONET_MEAN = (104.0, 117.0, 123.0), (96.6, 102.8, 108.0)  # blue, green, red
# Pool 3/2 rounds up: at 224 pixels pool1 is 27 wide, where rounding down would give 26.
SIDES = (227, 224)


# Protocol buffers: just what a NetParameter needs. Numbers are those of Caffe's caffe.proto.
def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def number(field, n):
    return varint(field << 3) + varint(n)


def real(field, x):
    return varint(field << 3 | 5) + struct.pack("<f", x)


def bytes_(field, *parts):
    parts = [p.encode() if isinstance(p, str) else p for p in parts]
    return varint(field << 3 | 2) + varint(sum(map(len, parts))) + b"".join(parts)


def blob(values, legacy):
    if legacy:  # num, channels, height, width
        dims = (1,) * (4 - values.ndim) + values.shape
        dims = b"".join(number(i + 1, d) for i, d in enumerate(dims))
    else:  # BlobShape
        dims = bytes_(7, bytes_(1, *map(varint, values.shape)))
    return dims + bytes_(5, values.astype("<f4").tobytes())


class Layer:
    """One layer. `param` gives the fields of its parameter message, (number, name, value) each."""

    # type: V1's number, V1's field of its parameters, the new field, the name of both
    KINDS = {
        "Convolution": (4, 10, 106, "convolution_param"),
        "Deconvolution": (39, 10, 106, "convolution_param"),
        "Dropout": (6, 12, 108, "dropout_param"),
        "InnerProduct": (14, 17, 117, "inner_product_param"),
        "LRN": (15, 18, 118, "lrn_param"),
        "Pooling": (17, 19, 121, "pooling_param"),
        "ReLU": (18, 30, 123, "relu_param"),
    }

    def __init__(self, kind, name, bottom, top, weight=None, deviation=0.0, param=()):
        self.kind, self.name, self.bottom, self.top = kind, name, bottom, top
        self.weight, self.deviation, self.param = weight, deviation, param

    def text(self):
        head = f'layer {{ name: "{self.name}" type: "{self.kind}" bottom: "{self.bottom}" top: "{self.top}"'
        if self.kind == "Reshape":
            return head + " reshape_param { shape { dim: 0 dim: 256 dim: 4 dim: 4 } } }\n"
        fields = " ".join(f"{name}: {value}" for _, name, value in self.param)
        return f"{head} {self.KINDS[self.kind][3]} {{ {fields} }} }}\n"

    def blobs(self, rng):
        """Weight and bias: the deviation of activations stays what it is, biases do not vanish."""
        if self.weight is None:
            return []
        weight = rng.standard_normal(self.weight, np.float32) * np.float32(self.deviation)
        outputs = dict((name, value) for _, name, value in self.param)["num_output"]
        return [weight, rng.standard_normal(outputs, np.float32) * np.float32(8.0)]

    def binary(self, blobs, legacy):
        if self.kind == "Reshape":
            shape = bytes_(1, *map(varint, (0, 256, 4, 4)))
            return bytes_(100, bytes_(1, self.name), bytes_(2, self.kind), bytes_(3, self.bottom),
                          bytes_(4, self.top), bytes_(133, bytes_(1, shape)))
        code, old, new, _ = self.KINDS[self.kind]
        fields = []
        for field, _, value in self.param:
            if value == "MAX":
                fields.append(number(field, 0))
            else:
                fields.append(number(field, value) if isinstance(value, int) else real(field, value))
        if legacy:
            parts = [bytes_(2, self.bottom), bytes_(3, self.top), bytes_(4, self.name), number(5, code)]
            parts += [bytes_(6, blob(b, True)) for b in blobs] + [bytes_(old, *fields)]
            return bytes_(2, *parts)
        parts = [bytes_(1, self.name), bytes_(2, self.kind), bytes_(3, self.bottom), bytes_(4, self.top)]
        parts += [bytes_(7, blob(b, False)) for b in blobs] + [bytes_(new, *fields)]
        return bytes_(100, *parts)


def conv(name, bottom, out, kernel, inputs, stride=1, pad=0, group=1):
    weight = (out, inputs // group, kernel, kernel)
    param = [(1, "num_output", out), (3, "pad", pad), (4, "kernel_size", kernel)]
    param += [(5, "group", group), (6, "stride", stride)]
    deviation = (2 / (inputs // group * kernel**2)) ** 0.5
    return Layer("Convolution", name, bottom, name, weight, deviation, param)


def deconv(name, bottom, out, kernel, inputs):
    stride = 2 if kernel == 4 else 1
    param = [(1, "num_output", out), (3, "pad", 1), (4, "kernel_size", kernel), (6, "stride", stride)]
    deviation = (2 * stride**2 / (inputs * kernel**2)) ** 0.5
    return Layer("Deconvolution", name, bottom, name, (inputs, out, kernel, kernel), deviation, param)


def fc(name, bottom, out, inputs):
    return Layer("InnerProduct", name, bottom, name, (out, inputs), (2 / inputs) ** 0.5, [(1, "num_output", out)])


def relu(name, at, slope=0.0):
    return Layer("ReLU", name, at, at, param=[(1, "negative_slope", slope)] if slope else ())


def pool(name, bottom):
    param = [(1, "pool", "MAX"), (2, "kernel_size", 3), (3, "stride", 2)]
    return Layer("Pooling", name, bottom, name, param=param)


def lrn(name, bottom):
    param = [(1, "local_size", 5), (2, "alpha", 1e-4), (3, "beta", 0.75)]
    return Layer("LRN", name, bottom, name, param=param)


def dropout(name, at):
    return Layer("Dropout", name, at, at, param=[(1, "dropout_ratio", 0.5)])


def classifier(fc7):
    """bvlc_reference_caffenet's deploy.prototxt, ReLU and dropout in place as there."""
    return [
        conv("conv1", "data", 96, 11, 3, stride=4), relu("relu1", "conv1"), pool("pool1", "conv1"),
        lrn("norm1", "pool1"), conv("conv2", "norm1", 256, 5, 96, pad=2, group=2), relu("relu2", "conv2"),
        pool("pool2", "conv2"), lrn("norm2", "pool2"), conv("conv3", "norm2", 384, 3, 256, pad=1),
        relu("relu3", "conv3"), conv("conv4", "conv3", 384, 3, 384, pad=1, group=2), relu("relu4", "conv4"),
        conv("conv5", "conv4", 256, 3, 384, pad=1, group=2), relu("relu5", "conv5"), pool("pool5", "conv5"),
        fc("fc6", "pool5", 4096, 9216), relu("relu6", "fc6"), dropout("drop6", "fc6"),
        fc("fc7", "fc6", fc7, 4096), relu("relu7", "fc7"), dropout("drop7", "fc7"),
    ]


def trunk(inputs, bottom):
    layers = []
    for name, out, kernel in [
        ("deconv5", 256, 4), ("conv5_1", 512, 3), ("deconv4", 256, 4), ("conv4_1", 256, 3),
        ("deconv3", 128, 4), ("conv3_1", 128, 3), ("deconv2", 64, 4), ("deconv1", 32, 4), ("deconv0", 3, 4),
    ]:
        layers.append(deconv(name, bottom, out, kernel, inputs))
        if name != "deconv0":
            layers.append(relu(f"relu_{name}", name, 0.3))
        inputs, bottom = out, name
    return layers


def generator(front):
    layers = []
    if front == "conv5":
        for name, bottom, pad, inputs in [("Rconv6", "feat", 1, 256), ("Rconv7", "Rconv6", 1, 512), ("Rconv8", "Rconv7", 0, 512)]:
            layers += [conv(name, bottom, 512, 3, inputs, pad=pad), relu(f"relu_{name}", name, 0.3)]
        return layers + trunk(512, "Rconv8")
    first = {"fc6": 4096, "fc8": 1000}[front]
    for name, bottom, inputs in [("defc7", "feat", first), ("defc6", "defc7", 4096), ("defc5", "defc6", 4096)]:
        layers += [fc(name, bottom, 4096, inputs), relu(f"relu_{name}", name, 0.3)]
    layers.append(Layer("Reshape", "reshape", "defc5", "deconv_in"))
    return layers + trunk(256, "deconv_in")


def write(folder, name, layers, entry, shape, forms):
    """The prototxt, and one caffemodel for each form of layer messages, all of the same weights."""
    dims = " ".join(f"dim: {d}" for d in shape)
    head = f'name: "{name}"\nlayer {{ name: "{entry}" type: "Input" top: "{entry}" input_param {{ shape {{ {dims} }} }} }}\n'
    prototxt = folder / "net.prototxt"
    prototxt.write_text(head + "".join(layer.text() for layer in layers))
    rng = np.random.default_rng(5)
    files = [open(folder / f"{form}.caffemodel", "wb") for form in forms]
    for file in files:
        file.write(bytes_(1, name))
    for layer in layers:
        blobs = layer.blobs(rng)
        for file, form in zip(files, forms):
            file.write(layer.binary(blobs, form == "v1"))
    for file in files:
        file.close()
    return prototxt


def opened(prototxt, form):
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(prototxt.with_name(f"{form}.caffemodel")))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    # Plain sums, and every layer's own output.
    net.enableFusion(False)
    net.enableWinograd(False)
    return net


def run_classifier(folder, name):
    layers, mean = classifier(1024), VIDEONET_MEAN
    forms, sides = ["new"], SIDES[:1]
    if name == "caffenet":
        layers, mean = classifier(4096) + [fc("fc8", "fc7", 1000, 4096)], CAFFENET_MEAN
        forms, sides = ["v1", "new"], SIDES
    taps = [layer.name for layer in layers if layer.kind != "Dropout"]
    prototxt = write(folder, name, layers, "data", (1, 3, 227, 227), forms)
    rng = np.random.default_rng(6)
    images = {side: rng.integers(0, 256, (2, 3, side, side)).astype(np.float32) for side in sides}
    for form in forms:
        net = opened(prototxt, form)
        found = {}
        for side, rgb in images.items():
            bgr = rgb[:, ::-1] - np.array(mean, np.float32).reshape(1, 3, 1, 1)
            net.setInput(np.ascontiguousarray(bgr), "data")
            found[f"x.{side}"] = rgb
            for tap, y in zip(taps, net.forward(taps)):
                found[f"{tap}.{side}"] = np.array(y)
        save_file(found, folder / f"{form}.safetensors")
        del net


def run_generator(folder, front):
    layers = generator(front)
    shape = {"fc6": (2, 4096), "fc8": (2, 1000), "conv5": (2, 256, 6, 6)}[front]
    prototxt = write(folder, front, layers, "feat", shape, ["new"])
    features = np.random.default_rng(6).standard_normal(shape, np.float32) * 30
    if front != "fc8":
        features = np.maximum(features, 0)
    net = opened(prototxt, "new")
    net.setInput(features, "feat")
    y = net.forward("deconv0")
    assert y.shape == (2, 3, 256, 256), y.shape
    cropped = np.ascontiguousarray(y[:, :, 14:241, 14:241])
    save_file({"x": features, "y": cropped}, folder / "new.safetensors")


if __name__ == "__main__":
    case, folder = sys.argv[1], Path(sys.argv[2])
    if case.startswith("generator-"):
        run_generator(folder, case.removeprefix("generator-"))
    else:
        run_classifier(folder, case)
