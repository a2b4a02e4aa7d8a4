"""The training works as a typical PyTorch script does them: modules, eager, fp32, NCHW.

Usage: train_naive.py FOLDER DEVICE. On a GPU, PyTorch's own settings stand: convolutions in TF32. Nothing here is slow on purpose, and nothing is tuned. It does the same
work as the others: the trunk biases of the generator do not learn, and weights decay where the released solver
lets them.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn

import inputs
import worker


class LocalResponseNorm(nn.Module):
    def forward(self, x):
        return F.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0)


class ToTorchvision(nn.Module):
    """BGR minus the Caffe mean -> RGB, 0-1, minus the ImageNet mean, over the deviation."""

    def __init__(self):
        super().__init__()
        for name in ("MEAN_BGR", "IMAGENET_MEAN_RGB", "IMAGENET_STD_RGB"):
            self.register_buffer(name, torch.tensor(getattr(inputs, name)).view(1, 3, 1, 1))

    def forward(self, x):
        rgb = (x + self.MEAN_BGR).flip(1) / 255.0
        return (rgb - self.IMAGENET_MEAN_RGB) / self.IMAGENET_STD_RGB


def features(given, tap):
    """The frozen network up to a tap, as a module."""
    weights, layers = given.weights["net"], []
    if given.net == "alexnet":
        layers.append(ToTorchvision())
    for row in given.rows_to(tap):
        if row["op"] == "conv":
            w = weights[row["key"] + ".weight"]
            groups = row["groups"]
            layer = nn.Conv2d(
                w.shape[1] * groups, w.shape[0], w.shape[2], row["stride"], row["pad"], groups=groups
            )
        elif row["op"] == "fc":
            w = weights[row["key"] + ".weight"]
            if not any(isinstance(x, nn.Flatten) for x in layers):
                layers.append(nn.Flatten())
            layer = nn.Linear(w.shape[1], w.shape[0])
        elif row["op"] == "relu":
            layer = nn.ReLU(inplace=True)
        elif row["op"] == "pool":
            layer = nn.MaxPool2d(3, 2, ceil_mode=row["ceil"])
        else:
            layer = LocalResponseNorm()
        if "key" in row:
            load(layer, weights, row["key"])
        layers.append(layer)
    net = nn.Sequential(*layers)
    for p in net.parameters():
        p.requires_grad = False
    return net.eval().to(given.x.device)


def load(layer, weights, name):
    with torch.no_grad():
        layer.weight.copy_(weights[name + ".weight"])
        layer.bias.copy_(weights[name + ".bias"])


class Generator(nn.Module):
    def __init__(self, given):
        super().__init__()
        self.crop = given.crop
        layers = []
        for row in given.generator:
            w = given.weights["g"][row["name"] + ".weight"]
            i, o = row["input"], row["output"]
            if row["op"] == "fc":
                layer = nn.Linear(i, o)
            elif row["op"] == "conv":
                layer = nn.Conv2d(i, o, w.shape[2], padding=row["pad"])
            else:
                if layers and isinstance(layers[-2], nn.Linear):
                    layers.append(nn.Unflatten(1, (i, 4, 4)))
                layer = nn.ConvTranspose2d(i, o, w.shape[2], row["stride"], row["pad"])
                layer.bias.requires_grad = False
            load(layer, given.weights["g"], row["name"])
            layers += [layer, nn.LeakyReLU(inputs.SLOPE, inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, features):
        x = self.layers(features)
        off = (x.shape[2] - self.crop) // 2
        return x[:, :, off : off + self.crop, off : off + self.crop]


class Discriminator(nn.Module):
    def __init__(self, given):
        super().__init__()
        weights = given.weights["d"]
        convolutions, dense = [], []
        for row in given.discriminator:
            w = weights[row["name"] + ".weight"]
            if w.dim() == 4:
                layer = nn.Conv2d(w.shape[1], w.shape[0], w.shape[2], row["stride"])
                convolutions += [layer, nn.ReLU(inplace=True)]
            else:
                layer = nn.Linear(w.shape[1], w.shape[0])
                dense += [nn.Dropout(0.5), layer, nn.ReLU(inplace=True)]
            load(layer, weights, row["name"])
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.layers = nn.Sequential(*convolutions, *pool, *dense[:-1])

    def forward(self, x):
        return self.layers(x)


def adam(groups, options):
    betas = (options["beta1"], options["beta2"])
    return torch.optim.Adam(groups, lr=options["lr"], betas=betas, eps=options["eps"])


class Training:
    def __init__(self, given):
        self.given = given
        self.encoder = features(given, given.encoder_tap)
        self.comparator = features(given, given.comparator_tap)
        self.g, self.d = (net(given).to(given.x.device) for net in (Generator, Discriminator))
        front = {m.weight for m in self.g.modules() if isinstance(m, nn.Conv2d)}
        rest = [p for p in self.g.parameters() if p.requires_grad and p not in front]
        decay = given.adam_g["weight_decay"]
        groups = [{"params": rest}]
        if front:
            groups.append({"params": list(front), "weight_decay": decay})
        self.adam_g = adam(groups, given.adam_g)
        decay = given.adam_d["weight_decay"]
        self.adam_d = adam([{"params": self.d.parameters(), "weight_decay": decay}], given.adam_d)

    def iteration(self):
        x, w, n = self.given.x, self.given.loss, len(self.given.x)
        real = torch.zeros(n, dtype=torch.long, device=x.device)
        fake = torch.ones(n, dtype=torch.long, device=x.device)
        with torch.no_grad():
            y = self.encoder(x)
            wanted = self.comparator(x)
        generated = self.g(y)

        self.adam_d.zero_grad()
        d_real = F.cross_entropy(self.d(x), real)
        d_fake = F.cross_entropy(self.d(generated.detach()), fake)
        (w["adv"] * (d_real + d_fake)).backward()
        self.adam_d.step()

        self.adam_g.zero_grad()
        adv = F.cross_entropy(self.d(generated), real)
        feat = ((self.comparator(generated) - wanted) ** 2).sum() / (2 * n)
        img = ((generated - x) ** 2).sum() / (2 * n)
        (w["feat"] * feat + w["adv"] * adv + w["img"] * img).backward()
        self.adam_g.step()
        return {
            "feat": feat.item(),
            "adv": adv.item(),
            "img": img.item(),
            "d_real": d_real.item(),
            "d_fake": d_fake.item(),
        }


def main():
    folder, device = sys.argv[1:]
    given = inputs.Inputs(folder, device)
    training = Training(given)
    given.weights = None
    losses = []
    for seed in given.dropout_seeds:
        torch.manual_seed(seed)
        losses.append(training.iteration())
    precision = "tf32" if given.x.is_cuda else "fp32"
    facts = {"precision": precision, "threads": torch.get_num_threads(), "checks": losses}
    worker.serve(facts, training.iteration, device)


if __name__ == "__main__":
    main()
