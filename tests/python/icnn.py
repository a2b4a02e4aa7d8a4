#!/usr/bin/env python3
"""iCNN's loss, gradient and updates in PyTorch, for the parity test.

    icnn.py OUT.safetensors

Written from the published script (Shen et al. 2019), not from this project's Rust code, image by image as it runs.
"""

import sys

import torch
from safetensors.torch import save_file

STEPS, FIRST, LAST, MOMENTUM, DECAY = 7, 2.0, 1e-10, 0.9, 0.01


def features(z, w):
    image = torch.tanh(z @ w["generator"]).view(1, 3, 8, 8)
    first = torch.nn.functional.conv2d(image, w["first"], stride=2)
    return first, torch.nn.functional.conv2d(first.clamp(min=0), w["second"]).flatten(1)


def loss(z, targets, w):
    weights = [1 / (t**2).sum() for t in targets]
    terms = [((f - t) ** 2).sum() * v / sum(weights) for f, t, v in zip(features(z, w), targets, weights)]
    return sum(terms)


def main():
    torch.manual_seed(7)
    shapes = {"generator": (5, 192), "first": (4, 3, 3, 3), "second": (6, 4, 2, 2)}
    w = {k: (torch.randn(shape) * 0.3).double() for k, shape in shapes.items()}
    upper = (torch.rand(5) * 2 + 0.2).double()
    start = torch.rand(2, 5).double()
    wanted = torch.rand(2, 5).double() * 2
    out = {k: v.float() for k, v in w.items()} | {"upper": upper.float(), "start": start.float()}
    w = {k: v.float().double() for k, v in w.items()}
    ends, bests, losses, gradients, targets_of = [], [], [], [], []
    for z, truth in zip(start.float().double()[:, None], wanted[:, None]):
        targets = [t.float().double() for t in features(truth, w)]
        targets_of.append(targets)
        delta, best = torch.zeros_like(z), None
        for step in range(STEPS + 1):
            leaf = z.clone().requires_grad_(True)
            value = loss(leaf, targets, w)
            (g,) = torch.autograd.grad(value, leaf)
            if step == 0:
                gradients.append(g)
            if best is None or value < best[0]:
                best = (value.detach(), z)
            if step == STEPS:
                break
            rate = FIRST + step * (LAST - FIRST) / STEPS
            g = g / g.abs().mean()
            delta = MOMENTUM * delta + g
            z = z - rate * delta
            z = (1 - DECAY) * z
            z = torch.minimum(z.clamp(min=0), upper.float().double())
        ends.append(z)
        bests.append(best[1])
        losses.append(best[0])
    for i, layer in enumerate(("first", "second")):
        out[f"target/{layer}"] = torch.cat([t[i] for t in targets_of])
    out |= {"end": torch.cat(ends), "best": torch.cat(bests), "loss": torch.stack(losses), "gradient": torch.cat(gradients)}
    save_file({k: v.float().contiguous() for k, v in out.items()}, sys.argv[1])


main()
