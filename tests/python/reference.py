#!/usr/bin/env python3
"""An independent reference in PyTorch, for the parity tests.

    reference.py CASE --seed N [--crop S] [--batch N] [--tap T] --out FILE.safetensors
    reference.py --selftest             checks this reference against the facts
    reference.py --serve                cases from standard input, one a line: importing torch takes longer than most

Written from the paper and the facts of the released models, not from this project's Rust code.
The file holds weights `w/NAME`, input `x`, the upstream gradient `up`, output `y`, `gx` and
`g/NAME` (gradients of sum(y * up)). With several taps, comma-separated, it holds `up/TAP`,
`y/TAP` and `gx/TAP` instead, and no gradients of weights; with several mistakes, `y/MISTAKE`
for each, and nothing else but weights and input.

Everything is computed in float64 (`--single`: in float32). What float32 does not hold exactly is stored in
float64, tensors of over a million values rounded to float32.
"""

import argparse
import functools
import json
import math
import shlex
import sys
import traceback

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import adversaries
import autoencoders
import classifiers
import db
import encoders
import gate
import losses
import mae
import metrics
import nets
import oracles
import precision
import selftest
import training
import vaegan
from precision import lift

CASES = (
    "caffenet videonet alexnet vgg16 efficientnet-lite0 squeezenet generator db-generator discriminator "
    "losses adam schedule iteration gate error lpips ssim ms-ssim vae vaegan patchgan heads modern inception-fid mae-decoder"
).split() + [*oracles.RUN, *encoders.CASES]


class Draw:
    """All random numbers except dropout, which has torch's generator to itself."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def normal(self, shape, std=1.0):
        return torch.from_numpy(self.rng.standard_normal(shape, dtype=np.float32) * np.float32(std))

    def images(self, n, size):
        """Blobs of colour under noise. As in natural images, neighbours agree and channels differ."""
        coarse = torch.from_numpy(self.rng.uniform(0, 255, (n, 3, 7, 7)).astype(np.float32))
        smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        return (smooth + self.normal((n, 3, size, size), 25.0)).clamp(0, 255)

    def features(self, n, features):
        """Like rectified and pooled activations: not negative, a third of them zero."""
        shape = (n, *features) if len(features) == 1 else (n, features[0], features[1], features[1])
        return (self.normal(shape) + 0.5).clamp(min=0)

    def weights(self, shapes, biases=None, first_scale=1.0, slope=0.0):
        """Scaled so that activations keep their size; biases large enough to be missed."""
        w = {}
        for i, (name, shape) in enumerate(shapes.items()):
            outputs = biases[name] if biases else shape[0]
            fan_in = math.prod(shape) / outputs
            if name.startswith(("deconv",)):
                fan_in /= 4  # at stride 2 a quarter of the kernel meets each pixel
            gain = math.sqrt(2.0 / ((1 + slope**2) * fan_in)) * (first_scale if i == 0 else 1.0)
            w[name + ".weight"] = self.normal(shape, gain)
            w[name + ".bias"] = self.normal((outputs,), 0.1)
        return w


def with_gradients(w, x, forward, draw):
    """y, up, gx and g/ for one output. Weights that do not reach the output have no gradient."""
    x = lift(x).clone().requires_grad_()
    w = {k: lift(v).clone().requires_grad_() for k, v in w.items()}
    y = forward(w, x)
    up = lift(draw.normal(tuple(y.shape)))
    names = list(w)
    gx, *grads = torch.autograd.grad((y * up).sum(), [x] + [w[k] for k in names], allow_unused=True)
    out = {"x": x, "up": up, "y": y, "gx": gx}
    out.update({f"g/{k}": g for k, g in zip(names, grads) if g is not None})
    return out


def only_mistake(args):
    if len(args.mutate) > 1:
        raise SystemExit("several mistakes at once: only for one tap of caffenet or alexnet")
    return args.mutate[0] if args.mutate else None


def mistakes(text):
    names = tuple(text.split(","))
    if any(n not in nets.MUTATIONS for n in names):
        raise argparse.ArgumentTypeError(f"mistakes are {', '.join(nets.MUTATIONS)}")
    return names


def feature_net(args, draw, net, all_taps, shapes, make_weights=None):
    taps = args.tap.split(",")
    unknown = [t for t in taps if t not in all_taps]
    if unknown:
        raise SystemExit(f"unknown taps {unknown}; there are {all_taps}")
    whole = any(t.startswith("fc") or t in ("relu6", "relu7", "logits") for t in taps)
    kept = {k: s for k, s in shapes.items() if whole or len(s) == 4}
    # Blobs of about 70 grey levels into a unit-variance first layer would leave LRN with nothing
    # to do, so CaffeNet keeps the images' scale and AlexNet starts from unit variance.
    w = (make_weights or draw.weights)(kept)
    deepest = max(taps, key=all_taps.index)
    x = draw.images(args.batch, args.crop)
    out = {f"w/{k}": v for k, v in w.items()}
    if len(args.mutate) > 1:
        w, x = lift(w), lift(x)
        out |= {"x": x, "y": net(w, x, {deepest})[deepest]}
        out |= {f"y/{m}": net(w, x, {deepest}, m)[deepest] for m in args.mutate}
        return out, {}
    mutate = only_mistake(args)
    if len(taps) == 1:
        out.update(with_gradients(w, x, lambda w, x: net(w, x, {deepest}, mutate)[deepest], draw))
        return out, {}
    leaf = lift(x).clone().requires_grad_()
    found = net(lift(w), leaf, set(taps), mutate)
    for tap in taps:
        up = lift(draw.normal(tuple(found[tap].shape)))
        (gx,) = torch.autograd.grad((found[tap] * up).sum(), leaf, retain_graph=True)
        out.update({f"y/{tap}": found[tap], f"up/{tap}": up, f"gx/{tap}": gx})
    out["x"] = x
    return out, {}


def caffenet(args, draw):
    return feature_net(args, draw, nets.caffenet, nets.CAFFENET_TAPS, nets.CAFFENET_SHAPES)


def videonet(args, draw):
    return feature_net(args, draw, nets.videonet, nets.VIDEONET_TAPS, nets.VIDEONET_SHAPES)


def vgg16(args, draw):
    return feature_net(args, draw, classifiers.vgg16, classifiers.VGG16_TAPS, classifiers.VGG16_SHAPES)


def efficientnet_lite0(args, draw):
    def weights(shapes):
        return classifiers.efficientnet_lite0_weights(draw, shapes)

    shapes, taps = classifiers.EFFICIENTNET_LITE0_SHAPES, classifiers.EFFICIENTNET_LITE0_TAPS
    return feature_net(args, draw, classifiers.efficientnet_lite0, taps, shapes, weights)


def squeezenet(args, draw):
    # From the images' scale to 1, where biases matter.
    weights = functools.partial(draw.weights, first_scale=1 / 70)
    shapes, taps = classifiers.SQUEEZENET_SHAPES, classifiers.SQUEEZENET_TAPS
    return feature_net(args, draw, classifiers.squeezenet, taps, shapes, weights)


TAP_FEATURES = {"pool5": (256, 6), "relu6": (4096,), "relu7": (4096,), "fc8": (1000,)}


def features_of(args):
    if args.features is not None:
        return args.features
    if args.tap not in TAP_FEATURES:
        raise SystemExit(f"--tap must be one of {sorted(TAP_FEATURES)}, or give --features C,f")
    return TAP_FEATURES[args.tap]


def generator_weights(draw, features, crop, output_scale=30.0):
    w = draw.weights(
        nets.generator_shapes(features, crop), nets.generator_biases(features, crop), slope=nets.SLOPE
    )
    w["deconv0.weight"] *= output_scale  # images, not grey
    w["deconv0.bias"] *= 50.0
    return w


def generator(args, draw):
    features = features_of(args)
    w = generator_weights(draw, features, args.crop)
    y = draw.features(args.batch, features)
    out = {f"w/{k}": v for k, v in w.items()}
    out.update(
        with_gradients(w, y, lambda w, x: nets.generator(w, x, features, args.crop, only_mistake(args)), draw)
    )
    return out, {"features": ",".join(map(str, features))}


def db_generator(args, draw):
    features = features_of(args)
    shapes, biases = db.shapes(features, args.crop), db.biases(features, args.crop)
    w = draw.weights(shapes, biases, slope=db.SLOPE)
    w["deconv0.weight"] *= 30.0
    y = draw.features(args.batch, features)
    out = {f"w/{k}": v for k, v in w.items()}
    out.update(with_gradients(w, y, lambda w, x: db.generator(w, x, features, args.crop), draw))
    return out, {"features": ",".join(map(str, features))}


def discriminator_weights(draw, crop, features=None):
    # Dconv1 as the authors start it: much smaller, and one Adam step would upset the whole net.
    w = draw.weights(nets.discriminator_shapes(crop, features), first_scale=0.1)
    w["Dfc7.weight"] *= 0.2  # neither sure nor undecided
    return w


def discriminator(args, draw):
    w = discriminator_weights(draw, args.crop, args.features)
    feat = None if args.features is None else draw.features(args.batch, args.features)
    x = draw.images(args.batch, args.crop)
    if feat is not None:  # its gradient comes with those of the weights
        w["feat"] = feat
    out = with_gradients(
        w,
        x,
        lambda w, x: nets.discriminator(w, x, args.crop, w.get("feat"), mutate=only_mistake(args)),
        draw,
    )
    if feat is not None:
        out["feat"], out["gfeat"] = w.pop("feat"), out.pop("g/feat")
    out.update({f"w/{k}": v for k, v in w.items()})
    return out, {}


def losses_case(args, draw):
    n = args.batch
    pairs = {
        "feat": (draw.features(n, (16, 5)), draw.features(n, (16, 5))),
        "img": (draw.images(n, 24) * 1.4 - 50, draw.images(n, 24)),
    }
    real, fake = draw.normal((n, 2), 3.0), draw.normal((n, 2), 3.0)
    real[0], fake[0] = torch.tensor([-80.0, 70.0]), torch.tensor([90.0, -60.0])
    out = {"real_logits": real, "fake_logits": fake}
    for name, (a, b) in pairs.items():
        out[f"{name}_a"], out[f"{name}_b"] = a, b
    noises = [draw.normal((n, 3, 5, 5)) for _ in range(2)]
    out["noise_a"], out["noise_b"] = noises
    # Half of the pairs are farther apart than what counts.
    ratios = (losses.apart(*pairs["img"]) / losses.apart(*noises)).sort().values
    limit = (ratios[n // 2 - 1] + ratios[n // 2]).item() / 2

    def record(key, inputs, value):
        leaf = lift(inputs).clone().requires_grad_()
        loss = value(leaf)
        (grad,) = torch.autograd.grad(loss, leaf)
        out[key], out[f"{key}/g"] = loss.detach(), grad

    for how in losses.REDUCTIONS:
        for name, (a, b) in pairs.items():
            record(f"{how}/{name}", a, lambda t: losses.squared_distance(t, lift(b), how))
        a, b = pairs["feat"]
        for apart in ("absolute", "cosine", "unit"):
            record(f"{how}/{apart}", a, lambda t: losses.feature_distance(t, lift(b), apart, how))
        record(f"{how}/adv", fake, lambda t: losses.adversarial(t, how))
        record(f"{how}/d_real", real, lambda t: losses.cross_entropy(t, 0, how))
        record(f"{how}/d_fake", fake, lambda t: losses.cross_entropy(t, 1, how))
        a, b = pairs["img"]
        record(f"{how}/tv", a, lambda t: losses.total_variation(t, how))
        apart = lift(noises)
        record(f"{how}/diversity", a, lambda t: -losses.diversity([t, lift(b)], apart, limit, how))
    out |= adversaries.loss_cases(draw, n, record)
    return out, {"limit": limit}


def adam(args, draw):
    shapes, steps = [(5, 7), (11,), (3, 2, 4, 4)], 20
    params = [draw.normal(s) for s in shapes]
    grads = [[draw.normal(s, 10.0 ** draw.rng.uniform(-4, 2)) for s in shapes] for _ in range(steps)]
    p, m, v, clipped = training.adam_steps(lift(params), lift(grads), args.weight_decay, args.rule, args.clip)
    out = {}
    for i in range(len(shapes)):
        out.update({f"p0/{i}": params[i], f"p/{i}": p[i], f"m/{i}": m[i], f"v/{i}": v[i]})
        out[f"moved/{i}"] = p[i] - params[i]
        out.update({f"grad/{t}/{i}": grads[t][i] for t in range(steps)})
    settings = {"steps": steps, "weight_decay": args.weight_decay, "lr": training.ADAM["lr"], "clipped": clipped}
    return out, settings


def schedule(args, draw):
    settings = {"warmup": 7, "until": 40, "min": 0.1}
    found = training.rates(*settings.values(), steps=39)
    return {"rates": torch.tensor(found, dtype=torch.float64)}, settings


def iteration(args, draw):
    net, shapes = {
        "caffenet": (nets.caffenet, nets.CAFFENET_SHAPES),
        "alexnet": (nets.alexnet, nets.ALEXNET_SHAPES),
    }[args.net]
    comparator = draw.weights({k: s for k, s in shapes.items() if len(s) == 4})
    images = [draw.images(args.batch, args.crop)]
    with torch.no_grad():
        y = net(lift(comparator), lift(images[0]), {args.tap})[args.tap]
        # Keep the first features near unit size, whatever the net: rescale its last layer.
        last = [k for k in comparator if k.endswith(".weight")][-1][: -len(".weight")]
        for part in (".weight", ".bias"):
            comparator[last + part] /= float(f"{y.std().item():.3g}")  # the same in every precision
    features = (y.shape[1], y.shape[2])
    entering = (features[0] + args.noise, *features[1:])
    g0 = generator_weights(draw, entering, args.crop)
    if args.diversity:  # noise that shows
        first = next(k for k in g0 if k.endswith(".weight"))
        g0[first][:, -args.noise :] *= 10
    d0 = discriminator_weights(draw, args.crop)
    images += [draw.images(args.batch, args.crop) for _ in range(1, args.iterations)]
    out, decayed = training.iterations(
        lift(comparator), args.tap, net, lift(g0), lift(d0), lift(images), features, args.crop, args.seed, args.weight_decay,
        args.one_pass, args.judged_at, args.noise, args.diversity, args.limit, training.RECIPE if args.recipe else None,
    )
    out.update({f"wC/{k}": v for k, v in comparator.items()})
    out.update({f"wG/{k}": v for k, v in g0.items()})
    out.update({f"wD/{k}": v for k, v in d0.items()})
    out.update({f"x/{i}": x for i, x in enumerate(images)})
    settings = {
        "net": args.net,
        "features": ",".join(map(str, features)),
        "iterations": args.iterations,
        "torch_seeds": ",".join(str(args.seed + i) for i in range(args.iterations)),
        "weight_decay": args.weight_decay,
        "decayed": ",".join(decayed),
        "noise": args.noise,
        "diversity": args.diversity,
        "limit": args.limit,
        "lr": training.ADAM["lr"],
        "lambdas": json.dumps(training.LAMBDA),
        **{f"recipe.{k}": v for k, v in training.RECIPE.items() if args.recipe},
    }
    return out, settings


def error(args, draw):
    n = 12
    truth = draw.images(n, 16)
    found = truth + draw.normal(tuple(truth.shape), 60.0)
    f_truth, f_found = draw.features(n, (8, 3)), draw.features(n, (8, 3))
    values = {
        "image_error": losses.normalised_error(found, truth),
        "image_error_clipped": losses.normalised_error(found.clamp(0, 255), truth),
        "feature_error": losses.normalised_error(f_found, f_truth),
    }
    out = {"truth": truth, "found": found, "f_truth": f_truth, "f_found": f_found}
    out.update({k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()})
    return out, {}


def lpips(args, draw):
    net, shapes = {
        "alexnet": (nets.alexnet, nets.ALEXNET_SHAPES),
        "vgg16": (classifiers.vgg16, classifiers.VGG16_SHAPES),
    }[args.net]
    taps = metrics.LPIPS_TAPS[args.net]
    if args.weights:
        w, heads = load_file(args.weights), load_file(args.heads)
    else:
        w = draw.weights({k: s for k, s in shapes.items() if len(s) == 4})
        channels = metrics.LPIPS_CHANNELS[args.net]
        heads = {f"lin{i}.weight": draw.normal((1, c, 1, 1)).abs() for i, c in enumerate(channels)}

    def distance(a, b):
        return metrics.lpips(lambda x: net(w, x, set(taps)), taps, heads, a, b)

    a = draw.images(args.batch, args.crop)
    b = (a + draw.normal(tuple(a.shape), 20.0)).clamp(0, 255)
    out = {f"w/{k}": v for k, v in w.items()} | {f"heads/{k}": v for k, v in heads.items()}
    w, heads = lift(w), lift(heads)
    a, b = (lift(t).clone().requires_grad_() for t in (a, b))
    y = distance(a, b)
    up = lift(draw.normal(tuple(y.shape)))
    ga, gb = torch.autograd.grad((y * up).sum(), [a, b])
    out |= {"up": up} | dict(a=a, b=b, y=y, ga=ga, gb=gb)
    return out, {}


def ssim(args, draw):
    a = draw.images(args.batch, args.crop)
    b = (a + draw.normal(tuple(a.shape), 20.0)).clamp(0, 255)
    out = {"a": a, "b": b, "ssim": metrics.ssim(a, b), "psnr": metrics.psnr(a, b)}
    return out, {}


def ms_ssim(args, draw):
    """By the package that people train with, pytorch-msssim; values and gradients, RGB 0-255."""
    from pytorch_msssim import ms_ssim, ssim

    out = {}
    a = draw.images(args.batch, args.crop)
    b = (a + draw.normal(tuple(a.shape), 40.0)).clamp(0, 255)
    out = {"a": a, "b": b, "up": draw.normal((args.batch,))}
    for name, of in (("ssim", ssim), ("ms_ssim", ms_ssim)):
        if name == "ms_ssim" and args.crop <= 160:
            continue  # the package refuses these
        x, y = lift(a).clone().requires_grad_(), lift(b).clone().requires_grad_()
        value = of(x, y, data_range=255, size_average=False)
        ga, gb = torch.autograd.grad((value * lift(out["up"])).sum(), [x, y])
        out |= {name: value.detach(), f"{name}/ga": ga, f"{name}/gb": gb}
    return out, {}


def vae(args, draw):
    net, shapes = nets.alexnet, nets.ALEXNET_SHAPES
    convolutions = {k: s for k, s in shapes.items() if len(s) == 4}
    comparator, encoder = draw.weights(convolutions), draw.weights(convolutions)
    images = [draw.images(args.batch, args.crop) for _ in range(args.iterations)]
    (latent,) = args.features
    with torch.no_grad():
        y = net(lift(comparator), lift(images[0]), {args.tap})[args.tap]
    n = y[0].numel()
    rms = float(f"{(y**2).mean().sqrt().item():.3g}")  # the same in every precision
    for head, size in zip(autoencoders.HEADS, (1.0, 0.3)):
        encoder[f"{head}.weight"] = draw.normal((latent, n), size / rms / n**0.5)
        encoder[f"{head}.bias"] = draw.normal((latent,), 0.1)
    g0 = generator_weights(draw, args.features, args.crop)
    d0 = discriminator_weights(draw, args.crop)
    out = autoencoders.iterations(
        lift(encoder), lift(comparator), args.tap, net, lift(g0), lift(d0), lift(images), latent, args.crop, args.seed,
        args.weight_decay, not args.without_kl,
    )
    for prefix, weights in (("wC", comparator), ("wE", encoder), ("wG", g0), ("wD", d0)):
        out.update({f"{prefix}/{k}": v for k, v in weights.items()})
    out.update({f"x/{i}": x for i, x in enumerate(images)})
    return out, {
        "torch_seeds": ",".join(str(args.seed + i) for i in range(args.iterations)),
        "weight_decay": args.weight_decay,
        "lr": training.ADAM["lr"],
    }


def vaegan_case(args, draw):
    if args.features is None or len(args.features) != 1:
        raise SystemExit("give the length of the code as --features L")
    if args.batch < 3:
        raise SystemExit("--batch 3 or more: batch norm makes 1 and -1 of any two numbers, with no gradient")
    if not 0 <= args.real_weight < 1:
        raise SystemExit("--real-weight must be below 1, or nothing is left of the generated images")
    shapes = vaegan.shapes(args.crop, args.features[0], args.width)
    weights = {net: vaegan.initial_weights(draw, layers) for net, layers in shapes.items()}
    images = [draw.images(args.batch, args.crop) for _ in range(args.iterations)]
    out, trained, gate_distance = vaegan.iterations(weights, images, args)
    out |= vaegan.evaluation(trained, images[0])
    out |= {f"w{net}/{k}": v for net in weights for k, v in weights[net].items()}
    out |= {f"x/{i}": x for i, x in enumerate(images)}
    return out, {
        "torch_seeds": ",".join(str(args.seed + i) for i in range(args.iterations)),
        "features": str(args.features[0]),
        "width": args.width,
        "iterations": args.iterations,
        "crop": args.crop,
        "batch": args.batch,
        "gan": args.gan,
        "gamma": args.gamma,
        "real_weight": args.real_weight,
        "equilibrium": args.equilibrium,
        "gate_margin": args.margin,
        "gate_distance": gate_distance,
        "weight_decay": args.weight_decay,
        "decayed": ",".join(k for net in weights for k in weights[net] if vaegan.decays(k)),
        "lr": args.lr,
        "img": args.img,
    }


RUN = {
    "caffenet": caffenet,
    "videonet": videonet,
    "vgg16": vgg16,
    "efficientnet-lite0": efficientnet_lite0,
    "squeezenet": squeezenet,
    "lpips": lpips,
    "ssim": ssim,
    "ms-ssim": ms_ssim,
    "vae": vae,
    "vaegan": vaegan_case,
    "patchgan": lambda args, draw: adversaries.discriminator_case(args, draw, with_gradients),
    "heads": lambda args, draw: adversaries.head_case(args, draw, with_gradients),
    "modern": lambda args, draw: adversaries.iteration_case(args, draw, generator_weights),
    "mae-decoder": lambda args, draw: mae.case(args, draw, with_gradients),
    "alexnet": lambda args, draw: feature_net(args, draw, nets.alexnet, nets.ALEXNET_TAPS, nets.ALEXNET_SHAPES),
    "generator": generator,
    "db-generator": db_generator,
    "discriminator": discriminator,
    "losses": losses_case,
    "adam": adam,
    "schedule": schedule,
    "iteration": iteration,
    "gate": gate.case,
    "error": error,
    "inception-fid": lambda args, draw: oracles.inception_case(args, draw, feature_net),
    **oracles.RUN,
    **encoders.CASES,
}


def numbers(text):
    return tuple(int(v) for v in text.split(","))


def run(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("case", nargs="?", choices=CASES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--crop", type=int, default=227)
    parser.add_argument("--rows", type=int, help="encoders: height of the images, where it is not --crop")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tap", default="pool5", help="one tap, or several with commas")
    parser.add_argument("--features", type=numbers, help="C,f for maps of f x f, or N for a vector")
    parser.add_argument("--net", choices=("caffenet", "alexnet", "vgg16"), default="alexnet")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--rule", choices=tuple(training.RULES), default="adam", help="adam: which")
    parser.add_argument("--clip", type=float, help="adam: largest norm of the gradients")
    parser.add_argument("--recipe", action="store_true", help="iteration: AdamW, clipping, a schedule and an average of G")
    parser.add_argument("--one-pass", action="store_true", help="iteration: D passes over G(y) once")
    parser.add_argument("--judged-at", help="iteration: compare in this layer of D")
    parser.add_argument("--noise", type=int, default=0, help="iteration: channels of noise behind the features")
    parser.add_argument("--diversity", type=float, default=0.0, help="iteration: weight of the diversity")
    parser.add_argument("--limit", type=float, default=0.0, help="iteration: diversity counts up to it")
    parser.add_argument("--without-kl", action="store_true", help="vae: leave the KL term out of the loss")
    parser.add_argument("--width", type=float, default=1.0, help="vaegan: times the hidden channels")
    parser.add_argument("--generator-width", type=float, default=1.0, help="times the hidden channels of DeePSiM's generator")
    parser.add_argument("--gan", action="store_true", help="vaegan: no encoder, no reconstruction")
    parser.add_argument("--gamma", type=float, default=1e-2, help="vaegan: G's share of the reconstruction")
    parser.add_argument("--real-weight", type=float, default=0.5, help="vaegan: of real images in D's loss")
    for name, value, text in (("equilibrium", 0.68, "the gate's middle"), ("margin", 0.35, "from there to its edges")):
        parser.add_argument(f"--{name}", type=float, default=value, help=f"vaegan: {text}")
    parser.add_argument("--img", type=float, default=0.0, help="vaegan: weight of the image loss")
    parser.add_argument("--lr", type=float, default=3e-4, help="vaegan: learning rate")
    adversaries.add_arguments(parser)
    parser.add_argument("--single", action="store_true", help="compute in float32 instead of float64")
    parser.add_argument("--mutate", type=mistakes, default=(), help="make these mistakes on purpose")
    parser.add_argument("--weight-decay", type=float, default=training.WEIGHT_DECAY)
    parser.add_argument("--weights", help="lpips: the network's, instead of random ones")
    parser.add_argument("--heads", help="lpips: the heads that belong to --weights")
    parser.add_argument("--out")
    args = parser.parse_args(arguments)
    if args.case is None or args.out is None:
        parser.error("give a CASE and --out FILE, --selftest, or --serve")
    precision.choose(args.single)
    nets.WIDTH = args.generator_width
    tensors, extra = RUN[args.case](args, Draw(args.seed))
    metadata = {
        "case": args.case,
        "seed": args.seed,
        "crop": args.crop,
        "batch": args.batch,
        "tap": args.tap,
        "generator_width": args.generator_width,
        "mutate": ",".join(args.mutate),
        "torch": torch.__version__,
        **extra,
    }
    save_file(
        {k: precision.stored(v) for k, v in tensors.items()},
        args.out,
        {k: str(v) for k, v in metadata.items()},
    )


def serve():
    """One case a line, as on the command line; the answer is `null` or what went wrong, as JSON."""
    for line in sys.stdin:
        try:
            run(shlex.split(line))
            answer = None
        except (Exception, SystemExit) as error:
            answer = f"{error}\n{traceback.format_exc()}"
        print(json.dumps(answer), flush=True)
    return 0


def main():
    torch.set_num_threads(1)
    if sys.argv[1:] == ["--selftest"]:
        return selftest.main()
    if sys.argv[1:] == ["--serve"]:
        return serve()
    run(sys.argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
