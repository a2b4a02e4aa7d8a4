"""Today's adversaries, from their published forms: losses, the discriminator of patches, penalties, augmentation, and whole
iterations with them."""

import math

import torch
import torch.nn.functional as F

import losses
import nets
import oracles
import training
import vaegan
from precision import lift

GAMES = ("cross-entropy", "non-saturating", "hinge", "least-squares")
LAMBDA = {"feat": 0.01, "adv": 3.0, "img": 1e-4}
SLOPE = 0.2


def reduced(each, how):
    """Over an image's places their mean; over samples their sum in the paper, else their mean."""
    each = each.flatten(1).mean(1)
    return each.sum() if how == "paper" else each.mean()


def discriminating(game, real, fake, how="caffe"):
    """D's two terms, (real, fake)."""
    if game == "hinge":
        terms = F.relu(1 - real) / 2, F.relu(1 + fake) / 2
    elif game == "least-squares":
        terms = (real - 1) ** 2 / 2, fake**2 / 2
    elif game == "non-saturating":
        terms = F.softplus(-real, threshold=200), F.softplus(fake, threshold=200)
    else:
        terms = tuple(
            F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label), reduction="none")
            for logits, label in ((real, 1.0), (fake, 0.0))
        )
    return tuple(reduced(each, how) for each in terms)


def generating(game, fake, how="caffe"):
    each = {
        "hinge": lambda: -fake,
        "least-squares": lambda: (fake - 1) ** 2,
        "non-saturating": lambda: F.softplus(-fake, threshold=200),
        "cross-entropy": lambda: -torch.log(torch.sigmoid(fake)),
    }[game]()
    return reduced(each, how)


def lecam(real, fake, of_real, of_fake, how="caffe"):
    """Tseng et al.: scores are held near the other side's average."""
    return reduced(F.relu(real - of_fake) ** 2, how) + reduced(F.relu(of_real - fake) ** 2, how)


def penalty(gradient, how="caffe"):
    """R1 without its weight, of a gradient with regard to images in -1..1."""
    return reduced((gradient**2).flatten(1).sum(1, keepdim=True) / 2, how)


# --- The discriminator of patches ----------------------------------------------------------


def patch_plan(layers, width, norm):
    """(place of the convolution, in, out, stride, place of its batch normalisation or None)."""
    plan, inputs = [], 3
    for i in range(layers + 1):
        outputs = vaegan.channels(64 * min(2**i, 8), width)
        place = 3 * i - 1 if i else 0
        normal = f"main.{place + 1}" if norm == "batch" and i else None
        plan.append((f"main.{place}", inputs, outputs, 1 if i == layers else 2, normal))
        inputs = outputs
    plan.append((f"main.{3 * layers + 2}", inputs, 1, 1, None))
    return plan


def patch_weights(draw, plan, norm):
    w = {}
    for name, inputs, outputs, _, normal in plan:
        orig = "_orig" if norm == "spectral" else ""
        w[f"{name}.weight{orig}"] = draw.normal((outputs, inputs, 4, 4), math.sqrt(1 / (8 * inputs)))
        if normal is None:
            w[f"{name}.bias"] = draw.normal((outputs,), 0.1)
        else:
            w[f"{normal}.weight"] = 1 + draw.normal((outputs,), 0.1)
            w[f"{normal}.bias"] = draw.normal((outputs,), 0.1)
            w[f"{normal}.running_mean"] = draw.normal((outputs,), 0.1)
            w[f"{normal}.running_var"] = 1 + draw.normal((outputs,), 0.1).abs()
        if norm == "spectral":
            w[f"{name}.weight_u"] = F.normalize(draw.normal((outputs,)), dim=0)
            w[f"{name}.weight_v"] = F.normalize(draw.normal((inputs * 16,)), dim=0)
    w[f"{plan[-1][0]}.bias"] += 1.0  # logits whose mean is not next to nothing
    return w


def learnt(name):
    return not name.endswith(("_u", "_v")) and ".running_" not in name


def iterate_spectral(w):
    """One step of the power iteration of each layer."""
    for name in [k for k in w if k.endswith(".weight_orig")]:
        stem = name[: -len("_orig")]
        matrix = w[name].detach().flatten(1)
        w[f"{stem}_v"] = F.normalize(matrix.T @ w[f"{stem}_u"], dim=0, eps=1e-12)
        w[f"{stem}_u"] = F.normalize(matrix @ w[f"{stem}_v"], dim=0, eps=1e-12)


def filters(w, name):
    if f"{name}.weight" in w:
        return w[f"{name}.weight"]
    orig = w[f"{name}.weight_orig"]
    u, v = w[f"{name}.weight_u"].detach(), w[f"{name}.weight_v"].detach()
    return orig / torch.dot(u, orig.flatten(1) @ v)


def patches(w, unit, plan, training=False):
    """Images in -1..1 -> logits [N, 1, h, w]. In training, batch normalisation takes the batch's statistics, and follows."""
    x = unit
    for i, (name, _, _, stride, normal) in enumerate(plan):
        x = F.conv2d(x, filters(w, name), w.get(f"{name}.bias"), stride, 1)
        if normal:
            mean, var = w[f"{normal}.running_mean"], w[f"{normal}.running_var"]
            x = F.batch_norm(
                x, mean.detach(), var.detach(), w[f"{normal}.weight"], w[f"{normal}.bias"], training, 0.1, 1e-5
            )
        if i + 1 < len(plan):
            x = F.leaky_relu(x, SLOPE)
    return x


def to_unit(rgb):
    return rgb / 127.5 - 1


# --- Augmentation --------------------------------------------------------------------------


def draw_augmentation(n, side):
    """Colours, shifts and centres of holes, from torch's generator."""
    shift, hole = int(side * 0.125 + 0.5), int(side * 0.5 + 0.5)
    return (
        torch.rand(n, 3, dtype=torch.float32),
        torch.randint(-shift, shift + 1, (n, 2)),
        torch.randint(0, side + (1 - hole % 2), (n, 2)),
    )


def augment(x, color, shift, hole):
    """Zhao et al., policy "color,translation,cutout", of images in -1..1."""
    brightness, saturation, contrast = (c.view(-1, 1, 1, 1) for c in lift(color).unbind(1))
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * (saturation * 2) + grey
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * (contrast + 0.5) + mean

    n, _, height, width = x.shape
    grid = torch.meshgrid(torch.arange(n), torch.arange(height), torch.arange(width), indexing="ij")
    rows = torch.clamp(grid[1] + shift[:, 0].view(-1, 1, 1) + 1, 0, height + 1)
    columns = torch.clamp(grid[2] + shift[:, 1].view(-1, 1, 1) + 1, 0, width + 1)
    padded = F.pad(x, [1, 1, 1, 1])
    x = padded.permute(0, 2, 3, 1)[grid[0], rows, columns].permute(0, 3, 1, 2)

    side = int(height * 0.5 + 0.5)
    grid = torch.meshgrid(torch.arange(n), torch.arange(side), torch.arange(side), indexing="ij")
    rows = torch.clamp(grid[1] + hole[:, 0].view(-1, 1, 1) - side // 2, 0, height - 1)
    columns = torch.clamp(grid[2] + hole[:, 1].view(-1, 1, 1) - side // 2, 0, width - 1)
    mask = torch.ones(n, height, width, dtype=x.dtype)
    mask[grid[0], rows, columns] = 0
    return x * mask.unsqueeze(1)


# --- Whole iterations ----------------------------------------------------------------------


def iterations(comparator, tap, net, g0, d0, plan, images, features, crop, rules, judge_by=None):
    """One iteration per batch of `images`, of feature term, L1 and the adversary that `rules` (the arguments) name.

    `judge_by` is a distance of image pairs that stands in for that of features.

    After torch.manual_seed(seed + iteration) three augmentations are drawn, where there are any: of D(real), D(fake), and
    of the updated D(fake). One step of the power iteration comes before D's passes.
    """
    trunk_biases = {k for k in g0 if k.endswith(".bias") and not k.startswith(("Rconv", "defc"))}
    g = training.trained(g0, trunk_biases)
    d = {k: v.clone().requires_grad_(learnt(k)) for k, v in d0.items()}
    names_g = [k for k in g if k not in trunk_biases]
    names_d = [k for k in d if learnt(k)]
    norms = {f"{normal}.{part}" for *_, normal in plan if normal for part in ("weight", "bias")}

    def adam(w, names, decayed):
        groups = [
            {"params": [w[k] for k in names if k in decayed], "weight_decay": rules.weight_decay},
            {"params": [w[k] for k in names if k not in decayed], "weight_decay": 0.0},
        ]
        return torch.optim.Adam([group for group in groups if group["params"]], foreach=False, **training.ADAM)

    decayed_g = {k for k in g if k.startswith("Rconv") and k.endswith(".weight")}
    adam_g, adam_d = adam(g, names_g, decayed_g), adam(d, names_d, set(names_d) - norms)
    averages = None
    out = {}

    def c(x):
        return net(comparator, x, {tap})[tap]

    def step(w, names, optimizer, grads):
        for name, grad in zip(names, grads):
            w[name].grad = grad.detach()
        optimizer.step()

    for it, x in enumerate(images):
        torch.manual_seed(rules.seed + it)
        draws = [draw_augmentation(len(x), crop) for _ in range(3)] if rules.augment else []

        def shown(unit, i):
            return augment(unit, *draws[i]) if draws else unit

        def judge(unit, i):
            return patches(d, shown(unit, i), plan, training=True)

        with torch.no_grad():
            y = c(x)
        fake = nets.generator(g, y, features, crop)
        iterate_spectral(d)
        real_logits, fake_logits = judge(to_unit(x), 0), judge(to_unit(fake.detach()), 1)
        real_loss, fake_loss = discriminating(rules.game, real_logits, fake_logits)
        discr = real_loss + fake_loss
        terms = {"d_real": real_loss, "d_fake": fake_loss}
        if rules.lecam and averages:
            terms["lecam"] = lecam(real_logits, fake_logits, *averages)
            discr = discr + rules.lecam * terms["lecam"]
        if rules.r1 and it % rules.every == 0:
            unit = to_unit(x).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(judge(unit, 0).sum(), unit, create_graph=True)
            terms["r1"] = penalty(gradient)
            discr = discr + rules.r1 * rules.every * terms["r1"]
        grads_d = torch.autograd.grad(discr, [d[k] for k in names_d])
        step(d, names_d, adam_d, grads_d)
        newest = real_logits.detach().mean(), fake_logits.detach().mean()
        if averages:
            newest = [rules.decay * a + (1 - rules.decay) * b for a, b in zip(averages, newest)]
        averages = newest

        adv = generating(rules.game, judge(to_unit(fake), 2))
        feat = judge_by(fake, x).mean() if judge_by else losses.squared_distance(c(fake), y, "caffe")
        img = (fake - x).abs().sum() / len(x)
        others = rules.feat * feat + LAMBDA["img"] * img
        weight = 1.0
        if rules.adaptive:
            last = g["deconv0.weight"]
            by = [torch.autograd.grad(t, last, retain_graph=True)[0].norm() for t in (others, adv)]
            weight = torch.clamp(by[0] / (by[1] + 1e-4), 0.0, 1e4).detach()
            terms["adv_weight"] = weight
        grads_g = torch.autograd.grad(others + LAMBDA["adv"] * weight * adv, [g[k] for k in names_g])
        step(g, names_g, adam_g, grads_g)

        terms |= {"feat": feat, "img": img, "adv": adv, "total": others + LAMBDA["adv"] * adv}
        out.update({f"loss/{it}/{name}": value.detach() for name, value in terms.items()})
        if it == 0:
            out.update({f"gG/{k}": v for k, v in zip(names_g, grads_g)})
            out.update({f"gD/{k}": v for k, v in zip(names_d, grads_d)})
    for name, after, before, names in (("G", g, g0, names_g), ("D", d, d0, names_d)):
        out.update({f"moved{name}/{k}": after[k].detach() - before[k] for k in names})
    out.update({f"state/{k}": v.detach() for k, v in d.items() if not learnt(k)})
    return out


# --- Cases of reference.py -----------------------------------------------------------------


def add_arguments(parser):
    parser.add_argument("--game", choices=GAMES, default="hinge", help="modern: the adversarial loss")
    parser.add_argument("--norm", choices=("batch", "none", "spectral"), default="batch", help="of patchgan and modern's D")
    parser.add_argument("--layers", type=int, default=3, help="patchgan, modern: before the last two")
    parser.add_argument("--r1", type=float, default=0.0, help="modern: weight of R1")
    parser.add_argument("--every", type=int, default=1, help="modern: iterations from one R1 to the next")
    parser.add_argument("--lecam", type=float, default=0.0, help="modern: weight of LeCAM")
    parser.add_argument("--decay", type=float, default=0.99, help="modern: of LeCAM's averages")
    parser.add_argument("--lpips", action="store_true", help="modern: LPIPS of the package as feature term")
    parser.add_argument("--feat", type=float, default=LAMBDA["feat"], help="modern: weight of the feature term")
    parser.add_argument("--adaptive", action="store_true", help="modern: weigh the adversarial term by gradient norms")
    parser.add_argument("--augment", action="store_true", help="modern: augment what D sees")


def loss_cases(draw, n, record):
    """Every loss and penalty under every reduction, by `record`; gives the inputs."""
    # Means that are not next to nothing, and values on either side of all kinks.
    real, fake = (draw.normal((n, 1, 3, 4), 1.5) + 1 for _ in range(2))
    gradient = draw.normal((n, 3, 4, 4), 1e-2)
    wide = lift([real, fake])
    for how in losses.REDUCTIONS:
        for game in GAMES:
            d = f"{how}/{game}/d"
            record(f"{d}_real", real, lambda t: discriminating(game, t, wide[1], how)[0])
            record(f"{d}_fake", fake, lambda t: discriminating(game, wide[0], t, how)[1])
            record(f"{how}/{game}/adv", fake, lambda t: generating(game, t, how))
        record(f"{how}/lecam", fake, lambda t: lecam(wide[0], t, 0.3, -0.4, how))
        record(f"{how}/r1", gradient, lambda t: penalty(127.5 * t, how))
    return {"real_map": real, "fake_map": fake, "gradient": gradient}


def discriminator_case(args, draw, with_gradients):
    plan = patch_plan(args.layers, args.width, args.norm)
    w = patch_weights(draw, plan, args.norm)
    iterate_spectral(w)  # or W would be divided by next to nothing
    x = draw.images(args.batch, args.crop)
    out = with_gradients(w, x, lambda w, x: patches(w, to_unit(x), plan), draw)
    out.update({f"w/{k}": v for k, v in w.items()})
    return out, {"norm": args.norm, "layers": args.layers, "width": args.width}


def head_case(args, draw, with_gradients):
    """Heads on AlexNet's layers, named by --tap."""
    taps = args.tap.split(",")
    places = {f"relu{i}": key for i, key in enumerate((0, 3, 6, 8, 10), start=1)}
    last = max(places[tap] for tap in taps)
    shapes = {k: s for k, s in nets.ALEXNET_SHAPES.items() if len(s) == 4 and int(k.split(".")[1]) <= last}
    w = {f"net.{k}": v for k, v in draw.weights(shapes).items()}
    for i, tap in enumerate(taps):
        channels = nets.ALEXNET_SHAPES[f"features.{places[tap]}"][0]
        for name, outputs, kernel in (("main.0.0", channels, 1), ("main.1.fn.0", channels, 9), ("cls", 1, 1)):
            stem = f"heads.{i}.{name}"
            w[f"{stem}.weight_orig"] = draw.normal((outputs, channels, kernel), math.sqrt(1 / (channels * kernel)))
            w[f"{stem}.bias"] = draw.normal((outputs,), 0.1)
            w[f"{stem}.weight_u"] = F.normalize(draw.normal((outputs,)), dim=0)
            w[f"{stem}.weight_v"] = F.normalize(draw.normal((channels * kernel,)), dim=0)
        for name in ("main.0.1", "main.1.fn.1"):
            w[f"heads.{i}.{name}.weight"] = 1 + draw.normal((channels,), 0.1)
            w[f"heads.{i}.{name}.bias"] = draw.normal((channels,), 0.1)
    iterate_spectral(w)

    def forward(w, rgb):
        frozen = {k[len("net.") :]: v.detach() for k, v in w.items() if k.startswith("net.")}
        maps = nets.alexnet(frozen, rgb, set(taps))
        return torch.cat([head(w, f"heads.{i}", maps[tap]) for i, tap in enumerate(taps)], dim=2)

    x = draw.images(args.batch, args.crop)
    out = with_gradients(w, x, forward, draw)
    out.update({f"w/{k}": v for k, v in w.items()})
    return out, {}


def head(w, stem, x):
    """A map -> logits [N, 1, positions]."""

    def block(x, name, number):
        weight = filters(w, f"{stem}.{name}.{number}")
        around = F.pad(x, [weight.shape[2] // 2] * 2, mode="circular") if weight.shape[2] > 1 else x
        x = F.conv1d(around, weight, w[f"{stem}.{name}.{number}.bias"])
        x = F.instance_norm(x, eps=1e-6)
        norm = f"{stem}.{name}.{number + 1}"
        return F.leaky_relu(x * w[f"{norm}.weight"].view(1, -1, 1) + w[f"{norm}.bias"].view(1, -1, 1), SLOPE)

    x = block(x.flatten(2), "main.0", 0)
    x = (block(x, "main.1.fn", 0) + x) / math.sqrt(2)
    return F.conv1d(x, filters(w, f"{stem}.cls"), w[f"{stem}.cls.bias"])


def iteration_case(args, draw, generator_weights):
    net, shapes = nets.alexnet, nets.ALEXNET_SHAPES
    comparator = draw.weights({k: s for k, s in shapes.items() if len(s) == 4})
    images = [draw.images(args.batch, args.crop) for _ in range(args.iterations)]
    with torch.no_grad():
        y = net(lift(comparator), lift(images[0]), {args.tap})[args.tap]
    last = [k for k in comparator if k.endswith(".weight")][-1][: -len(".weight")]
    for part in (".weight", ".bias"):
        comparator[last + part] /= float(f"{y.std().item():.3g}")  # the same in every precision
    features = (y.shape[1], y.shape[2])
    g0 = generator_weights(draw, features, args.crop)
    plan = patch_plan(args.layers, args.width, args.norm)
    d0 = patch_weights(draw, plan, args.norm)
    heads = oracles.lpips_heads(draw, "alexnet") if args.lpips else {}
    judge_by = oracles.lpips_package("alexnet", lift(comparator), heads) if heads else None
    out = iterations(
        lift(comparator), args.tap, net, lift(g0), lift(d0), plan, lift(images), features, args.crop, args, judge_by
    )
    out.update({f"heads/{k}": v for k, v in heads.items()})
    for prefix, weights in (("wC", comparator), ("wG", g0), ("wD", d0)):
        out.update({f"{prefix}/{k}": v for k, v in weights.items()})
    out.update({f"x/{i}": x for i, x in enumerate(images)})
    return out, {
        "torch_seeds": ",".join(str(args.seed + i) for i in range(args.iterations)),
        "weight_decay": args.weight_decay,
        "lr": training.ADAM["lr"],
    }
