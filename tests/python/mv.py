#!/usr/bin/env python3
"""Mahendran & Vedaldi's objective, gradient and updates in PyTorch, for the parity test.

    mv.py OUT.safetensors

Written from the published description, not from this project's Rust code: the total variation by
explicit loops over shifted images, the update on x/sigma as the authors write it.
"""

import sys

import torch
from safetensors.torch import save_file

SIGMA, LAMBDA_TV, LAMBDA_ALPHA, MOMENTUM = 2500.0, 100.0, 8e-10, 0.9
STAGES = [(4, 0.004), (3, 0.0004)]


def features(x, weight):
    return torch.nn.functional.conv2d(x / 64, weight, stride=2).clamp(min=0)


def energy(x, target, weight):
    feature = ((features(x, weight) - target) ** 2).sum((1, 2, 3)) / (target**2).sum((1, 2, 3))
    # At the last column and row the difference is to the pixel itself.
    right = torch.cat([x[..., 1:], x[..., -1:]], dim=3) - x
    below = torch.cat([x[..., 1:, :], x[..., -1:, :]], dim=2) - x
    tv = ((right**2 + below**2) ** (2 / 2)).sum((1, 2, 3))
    prior = (LAMBDA_TV / 2 * tv + LAMBDA_ALPHA / 2 * (x**6).sum((1, 2, 3))) / SIGMA**2
    return feature, prior


def main():
    torch.manual_seed(5)
    weight = torch.randn(6, 3, 3, 3) * 0.2
    photo = torch.randn(2, 3, 17, 14) * 60
    start = torch.randn(2, 3, 17, 14) * 70
    target = features(photo, weight)
    x = start.clone().requires_grad_(True)
    feature, prior = energy(x, target, weight)
    (gradient,) = torch.autograd.grad((feature + prior).sum(), x)
    out = {
        "weight": weight, "target": target, "start": start, "feature": feature.detach(),
        "prior": prior.detach(), "gradient": gradient,
    }
    # z = x / sigma; dE/dz = sigma dE/dx; one step moves z by m.
    z = (start / SIGMA).double()
    weight, target = weight.double(), target.double()
    for steps, rate in STAGES:
        m = torch.zeros_like(z)
        for _ in range(steps):
            leaf = z.clone().requires_grad_(True)
            total = sum(energy(leaf * SIGMA, target, weight)).sum()
            (g,) = torch.autograd.grad(total, leaf)
            m = MOMENTUM * m - rate * g
            z = z + m
    out["end"] = (z * SIGMA).float()
    out["feature_end"] = energy(z * SIGMA, target, weight)[0].float()
    save_file({k: v.contiguous() for k, v in out.items()}, sys.argv[1])


main()
