"""Twenty Adam steps, and whole iterations of the training loop in the authors' order."""

import torch

import losses
import nets
import precision

ADAM = {"lr": 2e-4, "betas": (0.9, 0.999), "eps": 1e-8}
WEIGHT_DECAY = 4e-4
LAMBDA = {"feat": 0.01, "adv": 100.0, "img": 2e-6, "discr": 100.0}
RULES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
# What newer trainings add to iterations: AdamW besides.
RECIPE = {"clip": 1.0, "warmup": 2, "until": 5, "min": 0.1, "ema": 0.9}


def scheduler(optimizer, warmup, until, least):
    """Linear warm-up, then half a cosine, as they are put together in PyTorch."""
    schedulers = torch.optim.lr_scheduler
    parts = [
        schedulers.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1),
        schedulers.CosineAnnealingLR(
            optimizer, T_max=until - warmup, eta_min=least * optimizer.param_groups[0]["initial_lr"]
        ),
    ]
    return schedulers.SequentialLR(optimizer, parts, milestones=[warmup])


def rates(warmup, until, least, steps):
    """The learning rate of each step, of 1."""
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.zeros(1)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = scheduler(optimizer, warmup, until, least)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def adam_steps(params, grads_by_step, weight_decay, rule="adam", clip=None):
    """Final parameters, m and v after one step for each list of gradients, and how many were clipped."""
    params = [p.clone().requires_grad_() for p in params]
    optimizer = RULES[rule](params, weight_decay=weight_decay, foreach=False, **ADAM)
    clipped = 0
    for grads in grads_by_step:
        for p, g in zip(params, grads):
            p.grad = g.clone()
        if clip is not None:
            clipped += int(torch.nn.utils.clip_grad_norm_(params, clip, foreach=False) > clip)
        optimizer.step()
    state = [optimizer.state[p] for p in params]
    return (
        [p.detach() for p in params],
        [s["exp_avg"] for s in state],
        [s["exp_avg_sq"] for s in state],
        clipped,
    )


def trained(weights, frozen=()):
    return {k: v.clone().requires_grad_(k not in frozen) for k, v in weights.items()}


def iterations(
    comparator, tap, net, g0, d0, images, features, crop, seed, weight_decay, one_pass=False, judged_at=None,
    noise=0, diversity=0.0, limit=0.0, recipe=None,
):
    """One iteration per batch of `images`: what a second implementation must find, and the names of
    the weights that decay.

    `comparator` holds the weights of `net` (nets.caffenet or nets.alexnet), encoder and
    comparator at once. Dropout masks are drawn after torch.manual_seed(seed + iteration):
    D(real) before Dfc6, before Dfc7; D(fake) the same; then, after D's update, D(fake) again.
    With `noise` so many channels of it, drawn before the masks, enter G behind y; with `diversity` as
    many again, for a second image that is to differ from the first.
    With `judged_at` the images are compared in that layer of the updated D instead, which learns
    nothing from it. With `one_pass` there is no third call: G follows what D said of `fake` before its update.
    With a `recipe` both networks have AdamW, clipped gradients (which are the ones that are given back) and a schedule,
    and an average of G's weights follows each update.
    """
    trunk_biases = {k for k in g0 if k.endswith(".bias") and not k.startswith(("Rconv", "defc"))}
    g, d = trained(g0, trunk_biases), trained(d0)
    # All of D decays, weights and biases: Caffe's decay_mult is 1 unless a layer says otherwise.
    rule = RULES["adamw" if recipe else "adam"]
    adam_d = rule(list(d.values()), weight_decay=weight_decay, foreach=False, **ADAM)
    # In G only the weights of the convolutional front end decay.
    decayed = [k for k in g if k.startswith("Rconv") and k.endswith(".weight")]
    plain = [v for k, v in g.items() if k not in trunk_biases and k not in decayed]
    groups = [{"params": plain, "weight_decay": 0.0}]
    if decayed:
        groups.append({"params": [g[k] for k in decayed], "weight_decay": weight_decay})
    adam_g = rule(groups, foreach=False, **ADAM)
    average = {k: v.detach().clone() for k, v in g.items()}
    schedules = [scheduler(adam, *(recipe[k] for k in ("warmup", "until", "min"))) for adam in (adam_g, adam_d) if recipe]

    def clip(name, it, weights):
        if recipe:
            norm = torch.nn.utils.clip_grad_norm_(weights, recipe["clip"], foreach=False)
            out[f"norm/{it}/{name}"] = norm

    def c(x):
        return net(comparator, x, {tap})[tap]

    def one(it, x, y):
        torch.manual_seed(seed + it)
        draws = [precision.noise(len(y), noise, *y.shape[2:]) for _ in range(2 if diversity else 1)]
        entering = (features[0] + noise, *features[1:])
        made = [nets.generator(g, torch.cat([y, z], 1), entering, crop) for z in draws]
        fake = made[0]

        masks = []
        real_logits = nets.discriminator(d, x, crop, masks=masks)
        shown = fake.detach().requires_grad_()
        fake_logits = nets.discriminator(d, shown, crop, masks=masks)
        real_loss, fake_loss = losses.discriminating(real_logits, fake_logits, "caffe")
        discr = LAMBDA["discr"] * (real_loss + fake_loss)
        if one_pass:
            adv = losses.adversarial(fake_logits, "caffe")
            (told,) = torch.autograd.grad(adv, shown, retain_graph=True)
            adv = adv.detach()
        grads_d = torch.autograd.grad(discr, list(d.values()))
        for p, grad in zip(d.values(), grads_d):
            p.grad = grad
        clip("D", it, list(d.values()))
        adam_d.step()

        if not one_pass:
            adv = losses.adversarial(nets.discriminator(d, fake, crop, masks=masks), "caffe")
        if judged_at:
            with torch.no_grad():
                wanted_there = nets.discriminator_features(d, x, crop, judged_at)
            found = nets.discriminator_features(d, fake, crop, judged_at)
            feat = losses.squared_distance(found, wanted_there, "caffe")
        else:
            feat = losses.squared_distance(c(fake), y, "caffe")
        img = losses.squared_distance(fake, x, "caffe")
        total = LAMBDA["feat"] * feat + LAMBDA["adv"] * adv + LAMBDA["img"] * img
        differing = losses.diversity(made, draws, limit) if diversity else torch.zeros(())
        learning = {k: v for k, v in g.items() if k not in trunk_biases}
        followed = total - diversity * differing
        if one_pass:  # `adv` does not know how `fake` was made: its gradient there leads on
            followed = followed + LAMBDA["adv"] * (fake * told).sum()
        grads_g = torch.autograd.grad(followed, list(learning.values()))
        for p, grad in zip(learning.values(), grads_g):
            p.grad = grad
        clip("G", it, list(learning.values()))
        adam_g.step()
        for schedule in schedules:
            schedule.step()
        if recipe:
            for k, v in learning.items():
                average[k] = recipe["ema"] * average[k] + (1 - recipe["ema"]) * v.detach()

        terms = {
            "feat": feat,
            "img": img,
            "adv": adv,
            "d_real": real_loss,
            "d_fake": fake_loss,
            "weighted_feat": LAMBDA["feat"] * feat,
            "weighted_img": LAMBDA["img"] * img,
            "weighted_adv": LAMBDA["adv"] * adv,
            "weighted_discr": discr,
            "total": total,
            "diversity": differing,
        }
        for name, value in terms.items():
            out[f"loss/{it}/{name}"] = value.detach()
        calls = ("real", "fake", "adv")
        for i, mask in enumerate(masks):
            out[f"mask/{it}/{calls[i // 2]}/{('Dfc6', 'Dfc7')[i % 2]}"] = mask
        if it == 0:  # later ones follow from updated weights
            out.update({f"gG/{k}": v for k, v in zip(learning, grads_g)})
            out.update({f"gD/{k}": v for k, v in zip(d, grads_d)})

    with torch.no_grad():
        wanted = [c(x) for x in images]
    out = {}
    for it, x in enumerate(images):
        one(it, x, wanted[it])
    for name, after, before in (("G", g, g0), ("D", d, d0)):
        out.update({f"moved{name}/{k}": v.detach() - before[k] for k, v in after.items()})
    if recipe:
        out.update({f"movedA/{k}": average[k] - g0[k] for k in g if k not in trunk_biases})
    return out, decayed + list(d)
