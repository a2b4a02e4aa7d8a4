"""Iterations of a variational autoencoder in the DeePSiM loss (paper, section 4.2; Eq. 8)."""

import torch

import losses
import nets
import precision
import training

LAMBDA_KL = 20.0
HEADS = ("mean", "log_variance")


def encode(w, net, tap, x):
    """mu and log sigma^2, from two linear heads on the flattened features."""
    features = net(w, x, {tap})[tap].flatten(1)
    return [features @ w[f"{h}.weight"].T + w[f"{h}.bias"] for h in HEADS]


def kl(mu, log_variance):
    """Eq. 8, per image: half of |mu|^2 + |sigma|^2 - <log sigma^2, 1>, averaged over the batch."""
    sigma = torch.exp(log_variance / 2)
    terms = (mu**2).sum(1) + (sigma**2).sum(1) - torch.log(sigma**2).sum(1)
    return terms.mean() / 2


def iterations(encoder0, comparator, tap, net, g0, d0, images, latent, crop, seed, weight_decay, weighted_kl):
    """As training.iterations, but what is decoded is z = mu + sigma * epsilon, and encoder and generator
    learn together. After torch.manual_seed(seed + iteration), epsilon is drawn first."""
    trunk_biases = {k for k in g0 if k.endswith(".bias") and not k.startswith(("Rconv", "defc"))}
    e, g, d = training.trained(encoder0), training.trained(g0, trunk_biases), training.trained(d0)
    adam = lambda weights, decay: torch.optim.Adam(
        list(weights), weight_decay=decay, foreach=False, **training.ADAM
    )
    learning = {k: v for k, v in g.items() if k not in trunk_biases}
    adams = {
        "E": adam(e.values(), weight_decay),
        "G": adam(learning.values(), 0.0),  # no convolutional front end: nothing decays
        "D": adam(d.values(), weight_decay),
    }
    out = {}

    def one(it, x):
        torch.manual_seed(seed + it)
        mu, log_variance = encode(e, net, tap, x)
        epsilon = precision.noise(*mu.shape)
        z = mu + torch.exp(log_variance / 2) * epsilon
        fake = nets.generator(g, z, (latent,), crop)
        discriminate = lambda images: nets.discriminator(d, images, crop, masks=[])  # with dropout
        real_loss, fake_loss = losses.discriminating(discriminate(x), discriminate(fake.detach()), "caffe")
        adams["D"].zero_grad()
        (training.LAMBDA["discr"] * (real_loss + fake_loss)).backward()
        adams["D"].step()
        adv = losses.adversarial(discriminate(fake), "caffe")
        c = lambda x: net(comparator, x, {tap})[tap]
        terms = {
            "feat": losses.squared_distance(c(fake), c(x).detach(), "caffe"),
            "img": losses.squared_distance(fake, x, "caffe"),
            "adv": adv,
            "kl": kl(mu, log_variance),
        }
        weights = training.LAMBDA | {"kl": LAMBDA_KL if weighted_kl else 0.0}
        total = sum(weights[k] * v for k, v in terms.items())
        learned = list(e.values()) + list(learning.values())
        grads = torch.autograd.grad(total, learned)
        for p, grad in zip(learned, grads):
            p.grad = grad
        if it == 0:  # later ones follow from updated weights
            names = [f"gE/{k}" for k in e] + [f"gG/{k}" for k in learning]
            out.update(zip(names, grads))
            out.update({f"gD/{k}": v.grad.clone() for k, v in d.items()})
        for k in "EG":
            adams[k].step()
        terms |= {"d_real": real_loss, "d_fake": fake_loss, "total": total}
        out.update({f"loss/{it}/{k}": v.detach() for k, v in terms.items()})
        out[f"z/{it}"] = z.detach()

    for it, x in enumerate(images):
        one(it, x)
    for name, after, before in (("E", e, encoder0), ("G", g, g0), ("D", d, d0)):
        out.update({f"moved{name}/{k}": v.detach() - before[k] for k, v in after.items()})
    return out
