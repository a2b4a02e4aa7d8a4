"""The switching gate between discriminator and generator, as a function over a whole sequence."""

import json
import math

import torch

THRESHOLDS = {"d_off": 0.1, "d_on": 0.5, "g_off": 10.0}


def ratio(real, fake, adv):
    return math.inf if adv == 0 else (real + fake) / adv


def gate(sequence, d_off=0.1, d_on=0.5, g_off=10.0):
    """(train_d, train_g) after each (L_real, L_fake, L_adv), unweighted; both start on.

    Three rules in this order, each seeing the last one's result.
    """
    train_d, train_g = True, True
    trace = []
    for real, fake, adv in sequence:
        r = ratio(real, fake, adv)
        if train_d and r < d_off:
            train_d, train_g = False, True
        if not train_d and r > d_on:
            train_d, train_g = True, True
        if train_g and r > g_off:
            train_d, train_g = True, False
        trace.append((train_d, train_g))
    return trace


def scripted(rng, steps=200):
    """A sequence that takes every edge, L_adv = 0 included, then wanders at random."""
    wanted = [2.0, 0.3, 0.1, 0.0999, 0.3, 0.5, 0.5001, 12.0, 9.0, 0.5, 0.05, 11.0, 11.0, 0.01]
    wanted += [0.2, math.inf, 3.0, 0.09, math.inf, 0.11, 0.02, 0.49, 0.51, 10.0, 10.01, 0.1]
    sequence = []
    for r in wanted:
        adv = 0.0 if math.isinf(r) else 0.7
        total = 1.4 if math.isinf(r) else r * adv
        sequence.append((0.6 * total, 0.4 * total, adv))
    log_r = 0.0
    while len(sequence) < steps:
        log_r = 0.7 * log_r + rng.normal(0.0, 2.0)
        adv = 0.0 if rng.random() < 0.03 else float(rng.uniform(0.05, 3.0))
        total = math.exp(log_r) * (adv if adv else 1.0)
        share = rng.uniform()
        sequence.append((share * total, (1 - share) * total, adv))
    return sequence


def case(_args, draw):
    sequence = scripted(draw.rng)
    trace = gate(sequence, **THRESHOLDS)
    out = {
        "losses": torch.tensor(sequence, dtype=torch.float64),
        "ratio": torch.tensor([ratio(*s) for s in sequence], dtype=torch.float64),
        "trace": torch.tensor(trace, dtype=torch.uint8),
    }
    return out, {"thresholds": json.dumps(THRESHOLDS)}
