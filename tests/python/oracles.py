"""The packages whose numbers others accept, with random weights: their own code is what ours is held against.

lpips, DISTS-pytorch and pytorch-fid fetch trained weights when they are constructed. Here they are given networks
without weights, and whatever reaches for the network all the same fails, and the test with it.
"""

import contextlib
import functools
import math
import types
from unittest import mock

import numpy as np
import torch

import classifiers
import nets
from precision import lift


@contextlib.contextmanager
def offline():
    """Constructors may not fetch anything, and get torchvision's networks without weights."""
    import torchvision
    from torchvision.models import vgg

    def refuse(*_, **__):
        raise RuntimeError("an oracle reaches for the network while it is constructed")

    def vgg16(**_):
        return types.SimpleNamespace(features=vgg.make_layers(vgg.cfgs["D"], batch_norm=False))

    def alexnet(**_):
        return torchvision.models.AlexNet()

    with (
        mock.patch("socket.socket.connect", refuse),
        mock.patch("socket.getaddrinfo", refuse),
        mock.patch("torchvision.models.vgg16", vgg16),
        mock.patch("torchvision.models.alexnet", alexnet),
    ):
        yield


def fill(module, w):
    """Convolutions that are children named by their place in torchvision's `features`."""
    filled = 0
    for path, layer in module.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            key = f"features.{path.rsplit('.', 1)[-1]}"
            layer.weight.data, layer.bias.data = w[key + ".weight"], w[key + ".bias"]
            filled += 2
    assert filled == len(w), (filled, len(w))


def distance(args, draw, w, build):
    """A distance of image pairs and its gradients; `build` gives a function of RGB images in 0-255."""
    a = draw.images(args.batch, args.crop)
    b = (a + draw.normal(tuple(a.shape), 20.0)).clamp(0, 255)
    of = build(lift(w))
    x, y = (lift(t).clone().requires_grad_() for t in (a, b))
    found = of(x, y)
    up = lift(draw.normal(tuple(found.shape)))
    ga, gb = torch.autograd.grad((found * up).sum(), [x, y])
    return {"a": a, "b": b, "up": up, "y": found, "ga": ga, "gb": gb}


def convolutions(shapes):
    return {k: s for k, s in shapes.items() if len(s) == 4}


def dists(args, draw):
    if args.weights:
        from safetensors.torch import load_file

        w, own = load_file(args.weights), load_file(args.heads)
    else:
        w = draw.weights(convolutions(classifiers.VGG16_SHAPES))
        own = {name: draw.normal((1, 1475, 1, 1)).abs() for name in ("alpha", "beta")}

    def build(w):
        with offline():
            from DISTS_pytorch import DISTS

            model = DISTS(load_weights=False)
        stages = [getattr(model, f"stage{i}") for i in range(1, 6)]
        fill(torch.nn.ModuleList(stages), w)
        model.alpha.data, model.beta.data = lift(own["alpha"]), lift(own["beta"])
        return lambda a, b: model(a / 255.0, b / 255.0, require_grad=True)

    out = distance(args, draw, w, build)
    out |= {f"w/{k}": v for k, v in w.items()} | {f"heads/{k}": v for k, v in own.items()}
    return out, {}


LPIPS = {
    "alexnet": ("alex", nets.ALEXNET_SHAPES, (64, 192, 384, 256, 256)),
    "vgg16": ("vgg", classifiers.VGG16_SHAPES, (64, 128, 256, 512, 512)),
}


def lpips_heads(draw, net):
    return {f"lin{i}.weight": draw.normal((1, c, 1, 1)).abs() for i, c in enumerate(LPIPS[net][2])}


def lpips_package(net, w, heads):
    """The package's distance of images in 0-255, one for each pair."""
    with offline():
        from lpips import LPIPS as Package

        model = Package(net=LPIPS[net][0], pretrained=False, pnet_rand=True, verbose=False)
    fill(model.net, w)
    for i, lin in enumerate(model.lins):
        lin.model[-1].weight.data = lift(heads[f"lin{i}.weight"])
    assert not model.training  # or its dropout is live
    return lambda a, b: model(a / 127.5 - 1, b / 127.5 - 1).flatten()


def lpips(args, draw):
    w = draw.weights(convolutions(LPIPS[args.net][1]))
    heads = lpips_heads(draw, args.net)
    out = distance(args, draw, w, lambda w: lpips_package(args.net, w, heads))
    out |= {f"w/{k}": v for k, v in w.items()} | {f"heads/{k}": v for k, v in heads.items()}
    return out, {}


# --- Inception and what is measured in its features ----------------------------------------

INCEPTION_TAPS = (
    "pool1 pool2 mixed_5b mixed_5c mixed_5d mixed_6a mixed_6b mixed_6c mixed_6d mixed_6e "
    "mixed_7a mixed_7b mixed_7c pooled logits"
).split()


@functools.cache
def pytorch_fid_network(double):
    """pytorch-fid's own network, with the random numbers that torch gives it."""
    with offline(), mock.patch("pytorch_fid.inception.load_state_dict_from_url", lambda *_, **__: {}):
        from pytorch_fid import inception

        loaded = mock.patch.object(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        with loaded:
            model = inception.fid_inception_v3()
    return model.to(torch.float64 if double else torch.float32).eval()


def inception_shapes():
    """Convolutions, and the classifier by its prefix."""
    state = pytorch_fid_network(True).state_dict()
    shapes = {k[: -len(".weight")]: tuple(v.shape) for k, v in state.items() if k.endswith("conv.weight")}
    return shapes | {"fc": (1008, 2048)}


def inception_weights(draw, kept):
    """Statistics and gains are drawn so that activations keep their size over fifty convolutions."""
    w = {}
    for conv, shape in kept.items():
        if conv == "fc":
            w |= draw.weights({"fc": shape})
            continue
        norm, n = conv[: -len("conv")] + "bn", (shape[0],)
        w[conv + ".weight"] = draw.normal(shape, math.sqrt(2.0 / math.prod(shape[1:])))
        w[norm + ".weight"] = 1 + draw.normal(n, 0.1)
        w[norm + ".bias"] = draw.normal(n, 0.2)
        w[norm + ".running_mean"] = draw.normal(n, 0.2)
        w[norm + ".running_var"] = 0.6 + draw.normal(n).abs()
    return w


def inception(w, rgb, taps, mutate=None):
    """pytorch-fid's network of images that have its size already."""
    model = pytorch_fid_network(rgb.dtype == torch.float64)
    rgb = rgb.flip(1) if mutate == "rgb" else rgb
    found = {}

    def keep(name):
        def hook(_module, _inputs, output):
            found[name] = output

        return hook

    pools = {"maxpool1": "pool1", "maxpool2": "pool2", "avgpool": "pooled", "fc": "logits"}
    handles = []
    for name, module in model.named_children():
        tap = pools.get(name, name.lower())
        if tap in taps:
            handles.append(module.register_forward_hook(keep(tap)))
    # Statistics are no weights: torch refuses gradients of them.
    w = {k: v.detach() if ".running_" in k else v for k, v in w.items()}
    torch.func.functional_call(model, w, (2 * (rgb / 255.0) - 1,))
    for handle in handles:
        handle.remove()
    return {tap: x.flatten(1) if tap == "pooled" else x for tap, x in found.items()}


def inception_case(args, draw, feature_net):
    def weights(shapes):
        return inception_weights(draw, shapes)

    return feature_net(args, draw, inception, INCEPTION_TAPS, inception_shapes(), weights)


def clean_resize(image, side=299):
    """As clean-fid: Pillow's bicubic filter on each channel in floating point; `image` is [3,H,W] in 0-255."""
    from PIL import Image

    def channel(plane):
        plane = Image.fromarray(plane.numpy().astype(np.float32))
        assert plane.mode == "F"
        return np.asarray(plane.resize((side, side), resample=Image.BICUBIC)).clip(0, 255)

    return torch.from_numpy(np.stack([channel(plane) for plane in image]))


def resize(args, draw):
    """Both packages' resizing, to smaller and to larger images."""
    out = {}
    for name, height, width in (("down", 340, 411), ("up", 64, 50)):
        x = draw.images(2, max(height, width))[:, :, :height, :width].contiguous()
        bilinear = torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        out |= {name: x, f"{name}/bilinear": bilinear}
        out[f"{name}/bicubic"] = torch.stack([clean_resize(image) for image in x])
    return out, {}


def fid_features(args, draw):
    """Images to features by pytorch-fid and as clean-fid does it, in single precision as they are used."""
    from pytorch_fid.inception import InceptionV3

    w = inception_weights(draw, inception_shapes())
    x = draw.images(args.batch, args.crop)
    network = pytorch_fid_network(False)
    assert set(w) | {k for k in network.state_dict() if k.endswith("num_batches_tracked")} == set(network.state_dict())
    with torch.no_grad():
        network.load_state_dict(w, strict=False)
        with mock.patch("pytorch_fid.inception.fid_inception_v3", lambda: network):
            blocks = InceptionV3(list(range(4)))
            plain = InceptionV3([3], resize_input=False, normalize_input=False)
        out = {"x": x} | {f"w/{k}": v for k, v in w.items()}
        for y in blocks.eval()(x / 255.0):
            out[f"pytorch-fid/{y.shape[1]}"] = y.mean(dim=(2, 3))
        clean = torch.stack([clean_resize(image) for image in x])
        out["clean-fid/2048"] = plain.eval()((clean - 128) / 128)[0].flatten(1)
    return out, {}


def polynomial_mmd(x, y):
    """Binkowski et al. 2018: the unbiased estimator with the kernel (x.y / d + 1)^3, in loops over nothing."""
    d, n, m = x.shape[1], len(x), len(y)
    xx, yy, xy = ((p @ q.T / d + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return within - 2 * xy.mean()


def share_within(x, of, k):
    """Kynkaanniemi et al. 2019: the share of x within the reach of some row of `of`, reached included."""
    far = lambda p, q: np.linalg.norm(p[:, None] - q[None], axis=2)  # noqa: E731
    reach = np.sort(far(of, of), axis=1)[:, k]  # place 0 is the row itself
    return (far(x, of) <= reach).any(axis=1).mean()


def distributions(args, draw):
    """Sets of features, with more rows than values and with fewer, and what is measured of them."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    out = {}
    for name, n, m in (("regular", 500, 400), ("singular", 40, 50)):
        # Rectified and correlated, as pooled activations are.
        mix = draw.normal((64, 64), 0.3).double()
        a = (draw.normal((n, 64)).double() @ mix + 0.3).clamp(min=0).float()
        b = (draw.normal((m, 64)).double() @ mix * 1.2 + 0.5).clamp(min=0).float()
        x, y = (t.double().numpy() for t in (a, b))
        moments = [part for z in (x, y) for part in (z.mean(axis=0), np.cov(z, rowvar=False))]
        values = {
            "frechet": calculate_frechet_distance(*moments),
            "kernel": polynomial_mmd(x, y),
            "precision": share_within(y, x, 3),
            "recall": share_within(x, y, 3),
        }
        out |= {f"{name}/a": a, f"{name}/b": b}
        out |= {f"{name}/{k}": torch.tensor(float(v), dtype=torch.float64) for k, v in values.items()}
    return out, {}


def identification(args, draw):
    """Correlations of images and features, grey SSIM and two-way identification, from their definitions in numpy.

    scikit-image's structural_similarity with gaussian_weights, sigma 1.5 and population covariances: a Gaussian filter
    cut at 3.5 deviations, the mean without a border of five pixels."""
    from scipy.ndimage import gaussian_filter

    def grey_ssim(a, b):
        a, b = (np.tensordot([0.2125, 0.7154, 0.0721], x / 255, 1) for x in (a, b))
        mean = lambda x: gaussian_filter(x, 1.5, truncate=3.5)  # noqa: E731
        ma, mb = mean(a), mean(b)
        va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
        value = (2 * ma * mb + 0.01**2) * (2 * cov + 0.03**2) / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2))
        return value[5:-5, 5:-5].mean()

    a = draw.images(3, 57)
    b = (a + draw.normal(tuple(a.shape), 60.0)).clamp(0, 255)
    out = {"a": a, "b": b}
    for name, side in (("down", 24), ("up", 80)):
        out[name] = torch.nn.functional.interpolate(a, size=(side, side), mode="bilinear", antialias=True)
    x, y = (t.double().numpy() for t in (a, b))
    out["pixels"] = torch.tensor([np.corrcoef(p.ravel(), q.ravel())[0, 1] for p, q in zip(x, y)])
    out["ssim"] = torch.tensor([grey_ssim(p, q) for p, q in zip(x, y)])
    # More values than one part has.
    real = draw.normal((9, 20000))
    made = real + draw.normal((9, 20000), 2.0) + 80 * draw.normal((1, 20000))
    r, m = (t.double().numpy() for t in (real, made))
    table = np.corrcoef(r, m)[: len(r), len(r) :]
    won = [sum(table[i, j] < table[j, j] for i in range(len(r)) if i != j) for j in range(len(r))]
    out |= {"real": real, "made": made, "two-way": torch.tensor(np.mean(won) / (len(r) - 1))}
    out["distance"] = torch.tensor(np.mean([1 - table[j, j] for j in range(len(r))]))
    return out, {}


RUN = {
    "identification": identification,
    "dists": dists,
    "lpips-package": lpips,
    "resize": resize,
    "fid-features": fid_features,
    "distributions": distributions,
}
