"""Iterations of VAE/GAN: an autoencoder that compares images in the discriminator it learns with
(Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", and the facts of the
authors' code). The networks see RGB in [-1, 1]; a network is a dict of tensors, running statistics too.
"""

import math

import torch
import torch.nn.functional as F

import autoencoders
import nets
import precision

EPS = 1e-6
MOMENTUM = 0.1
RMSPROP = {"b": 0.9, "eps": 1e-8}
LAMBDA = {"feat": 1.0, "adv": 1.0, "kl": 1.0}
BIASED = autoencoders.HEADS + ("Gconv4", "Dconv1", "Dfc6")  # all other layers have a norm instead
STATISTICS = (".running_mean", ".running_var")


def channels(authors, width):
    return max(8, math.floor(authors * width / 8 + 0.5) * 8)


def shapes(crop, latent, width):
    """The weights of each layer of E, G and D."""
    if crop % 8:
        raise SystemExit("--crop must be a multiple of 8")
    c32, c64, c128, c256, c512, c1024 = (channels(n, width) for n in (32, 64, 128, 256, 512, 1024))
    flat = c256 * (crop // 8) ** 2
    return {
        "E": {
            "Econv1": (c64, 3, 5, 5),
            "Econv2": (c128, c64, 5, 5),
            "Econv3": (c256, c128, 5, 5),
            "Efc4": (c1024, flat),
            "mean": (latent, c1024),
            "log_variance": (latent, c1024),
        },
        "G": {
            "Gfc": (flat, latent),
            "Gup1": (c256, c256, 5, 5),
            "Gup2": (c256, c128, 5, 5),
            "Gup3": (c128, c32, 5, 5),
            "Gconv4": (3, c32, 5, 5),
        },
        "D": {
            "Dconv1": (c32, 3, 5, 5),
            "Dconv2": (c128, c32, 5, 5),
            "Dconv3": (c256, c128, 5, 5),
            "Dconv4": (c256, c256, 5, 5),
            "Dfc5": (c512, flat),
            "Dfc6": (1, c512),
        },
    }


def initial_weights(draw, layers):
    """Unit variance before each norm, and running statistics that are near it but not at it."""
    scales = {"Gfc": 0.5, "log_variance": 0.3, "Gconv4": 0.7, "Dfc6": 0.5}
    w = {}
    for name, shape in layers.items():
        up = name.startswith("Gup")
        outputs = shape[1] if up else shape[0]
        fan_in = math.prod(shape) / outputs / (4 if up else 1)
        w[f"{name}.weight"] = draw.normal(shape, scales.get(name, 1.0) * math.sqrt(2.0 / fan_in))
        if name in BIASED:
            w[f"{name}.bias"] = draw.normal((outputs,), 0.1)
            continue
        w[f"{name}.norm.weight"] = 1.0 + draw.normal((outputs,), 0.1)
        w[f"{name}.norm.bias"] = draw.normal((outputs,), 0.1)
        w[f"{name}.norm.running_mean"] = draw.normal((outputs,), 0.1)
        w[f"{name}.norm.running_var"] = 1.0 + draw.normal((outputs,), 0.2).clamp(-0.5, 0.5)
    return w


def norm(w, name, x, how):
    """how: "update" (batch statistics, kept in the running ones), "batch" (not kept) or "running"."""
    mean, var = (None if how == "batch" else w[f"{name}.norm{s}"] for s in STATISTICS)
    scale, shift = w[f"{name}.norm.weight"], w[f"{name}.norm.bias"]
    return F.batch_norm(x, mean, var, scale, shift, how != "running", MOMENTUM, EPS)


def halve(w, name, x):
    return F.conv2d(x, w[f"{name}.weight"], stride=2, padding=2)


def double(w, name, x):
    return F.conv_transpose2d(x, w[f"{name}.weight"], stride=2, padding=2, output_padding=1)


def to_networks(images):
    return 2 * images / 255 - 1


def encode(w, x, how):
    """mu and log sigma^2."""
    for name in ("Econv1", "Econv2", "Econv3"):
        x = nets.relu(norm(w, name, halve(w, name, x), how))
    x = nets.relu(norm(w, "Efc4", F.linear(x.flatten(1), w["Efc4.weight"]), how))
    return [F.linear(x, w[f"{h}.weight"], w[f"{h}.bias"]) for h in autoencoders.HEADS]


def decode(w, z, how):
    x = nets.relu(norm(w, "Gfc", F.linear(z, w["Gfc.weight"]), how))
    base = w["Gup1.weight"].shape[0]
    side = math.isqrt(x.shape[1] // base)
    x = x.view(-1, base, side, side)
    for name in ("Gup1", "Gup2", "Gup3"):
        x = nets.relu(norm(w, name, double(w, name, x), how))
    return torch.tanh(F.conv2d(x, w["Gconv4.weight"], w["Gconv4.bias"], padding=2))


def discriminator_features(w, x, how):
    """Dconv4, before its norm."""
    x = nets.relu(F.conv2d(x, w["Dconv1.weight"], w["Dconv1.bias"], padding=2))
    for name in ("Dconv2", "Dconv3"):
        x = nets.relu(norm(w, name, halve(w, name, x), how))
    return halve(w, "Dconv4", x)


def discriminate(w, x, how):
    """One logit of "real" for each image."""
    x = nets.relu(norm(w, "Dconv4", discriminator_features(w, x, how), how))
    x = nets.relu(norm(w, "Dfc5", F.linear(x.flatten(1), w["Dfc5.weight"]), how))
    return F.linear(x, w["Dfc6.weight"], w["Dfc6.bias"]).flatten()


def similarity(d, xt, x):
    """Both halves share their batch statistics; D's running ones learn nothing of this pass."""
    found, wanted = discriminator_features(d, torch.cat([xt, x]), "batch").chunk(2)
    return ((found - wanted) ** 2).sum() / (2 * len(x))


def image_loss(xt, x):
    """In grey levels, 0-255."""
    return ((127.5 * (xt - x)) ** 2).sum() / (2 * len(x))


def kl(mu, log_variance):
    return (mu**2 + log_variance.exp() - log_variance).sum() / (2 * len(mu))


def label_losses(logits, real):
    """-log p of the first `real` images and -log(1 - p) of the generated rest, both softened."""
    p = torch.sigmoid(logits)
    return -torch.log(p[:real] + 1e-3), -torch.log(1 - p[real:] + 1e-3)


def gate(d_real, d_fake, equilibrium, margin):
    """Whether this batch trains (G, D)."""
    train_d = not (d_real < equilibrium - margin or d_fake < equilibrium - margin)
    train_g = not (d_real > equilibrium + margin or d_fake > equilibrium + margin)
    return (train_g, train_d) if train_g or train_d else (True, True)


def learnt(w):
    return {k: v for k, v in w.items() if not k.endswith(STATISTICS)}


def decays(name):
    return name.endswith(".weight") and ".norm." not in name and not name.startswith(autoencoders.HEADS)


@torch.no_grad()
def rmsprop_step(w, grads, squares, lr, weight_decay):
    """In place, in `squares` too. `weight_decay` is for weights of layers other than the heads."""
    for name, grad in grads.items():
        if decays(name):
            grad = grad + weight_decay * w[name]
        squares[name] = RMSPROP["b"] * squares[name] + (1 - RMSPROP["b"]) * grad**2
        w[name] -= lr * grad / (squares[name].sqrt() + RMSPROP["eps"])


def gradients(of, *groups, retain=False):
    """For each group of named weights the named gradients."""
    found = iter(torch.autograd.grad(of, [v for w in groups for v in w.values()], retain_graph=retain))
    return [{k: next(found) for k in w} for w in groups]


@torch.enable_grad()
def iterations(weights, images, args):
    """What a second implementation must find after one iteration per batch of `images`.

    All gradients of an iteration are of the same weights, and all updates come at its end. After
    torch.manual_seed(seed + iteration), epsilon is drawn and then the code that is from the prior;
    with args.gan the latter alone. A network that the gate holds back keeps its weights and its mean
    squares, but its running statistics are of all passes that update them.
    """
    w = {net: {k: precision.lift(v).clone() for k, v in weights[net].items()} for net in "EGD"}
    p = {net: learnt(w[net]) for net in "EGD"}
    for v in (v for net in "EGD" for v in p[net].values()):
        v.requires_grad_()
    squares = {net: {k: torch.zeros_like(v) for k, v in p[net].items()} for net in "EGD"}
    (latent,) = args.features
    out = {}

    def one(it, x):
        n = len(x)
        torch.manual_seed(args.seed + it)
        noise = lambda: precision.noise(n, latent)
        grads, terms = {}, {}
        if args.gan:
            codes = zp = noise()
        else:
            mu, log_variance = encode(w["E"], x, "update")
            z = mu + torch.exp(log_variance / 2) * noise()
            zp = noise()
            codes = torch.cat([z.detach(), zp])
            out[f"z/{it}"] = z
            xt = decode(w["G"], z, "update")
            terms = {
                "feat": similarity(w["D"], xt, x),
                "img": image_loss(xt, x),
                "kl": kl(mu, log_variance),
            }
            compared = LAMBDA["feat"] * terms["feat"] + args.img * terms["img"]
            (compared_g,) = gradients(compared, p["G"], retain=True)
            (grads["E"],) = gradients(LAMBDA["kl"] * terms["kl"] + compared, p["E"])
        out[f"zp/{it}"] = zp

        generated = decode(w["G"], codes, "update" if args.gan else "batch")
        l_real, l_gen = label_losses(discriminate(w["D"], torch.cat([x, generated]), "update"), n)
        terms |= {"d_real": l_real.mean(), "d_fake": l_gen.mean()}
        weight_gen = (1 - args.real_weight) * n / len(l_gen)
        total = (args.real_weight * l_real.sum() + weight_gen * l_gen.sum()) / n
        # D's batch statistics lead from the generated images to the real ones' logits too.
        total_g, total_d = gradients(total, p["G"], p["D"])
        grads["D"] = {k: LAMBDA["adv"] * g for k, g in total_d.items()}
        gamma = 0.0 if args.gan else args.gamma
        grads["G"] = {k: -(1 - gamma) * LAMBDA["adv"] * g / weight_gen for k, g in total_g.items()}
        if not args.gan:
            grads["G"] = {k: gamma * compared_g[k] + g for k, g in grads["G"].items()}

        found = (terms["d_real"].item(), terms["d_fake"].item())
        train_g, train_d = gate(*found, args.equilibrium, args.margin)
        for net, trains in (("E", not args.gan), ("G", train_g), ("D", train_d)):
            if trains:
                rmsprop_step(w[net], grads[net], squares[net], args.lr, args.weight_decay)
        out.update({f"loss/{it}/{k}": v for k, v in terms.items()})
        out.update({f"gate/{it}/{k}": torch.tensor(float(v)) for k, v in
                    (("train_g", train_g), ("train_d", train_d))})
        if it == 0:  # later ones follow from updated weights
            out.update({f"g{net}/{k}": g for net in grads for k, g in grads[net].items()})
        from_edge = lambda loss, edge: abs(loss - args.equilibrium - edge)
        return min(from_edge(loss, edge) for loss in found for edge in (-args.margin, args.margin))

    inputs = [to_networks(precision.lift(x)) for x in images]
    gate_distance = min(one(it, x) for it, x in enumerate(inputs))
    for net in "EGD":
        out.update({f"out{net}/{k}": v for k, v in w[net].items()})
        out.update({f"moved{net}/{k}": v.detach() - precision.lift(weights[net][k]) for k, v in w[net].items()})
    return {k: v.detach() for k, v in out.items()}, w, gate_distance


@torch.no_grad()
def evaluation(w, images):
    """By running statistics."""
    x = to_networks(precision.lift(images))
    mean, _ = encode(w["E"], x, "running")
    found = {
        "mean": mean,
        "picture": decode(w["G"], mean, "running"),
        "logit": discriminate(w["D"], x, "running"),
    }
    return {f"eval/{k}": v for k, v in found.items()}
