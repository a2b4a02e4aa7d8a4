"""The arithmetic of a run of the reference: float64, or float32 to see how much that matters.

Everything is drawn in float32, so that both take the same numbers, and lifted before it is computed with.
"""

import torch


def choose(single):
    torch.set_default_dtype(torch.float32 if single else torch.float64)


def lift(value):
    """A tensor, or a dict or list of them, in the arithmetic of this run."""
    if isinstance(value, dict):
        return {k: lift(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [lift(v) for v in value]
    return value.to(torch.get_default_dtype())


def noise(*shape):
    """Normal numbers from torch's generator, the same for both."""
    return lift(torch.randn(*shape, dtype=torch.float32))


def stored(value, largest=1_000_000):
    """float32 where that holds the numbers exactly or there are many of them, else float64."""
    value = value.detach().contiguous()
    if value.dtype == torch.float64:
        narrow = value.float()
        if value.numel() > largest or torch.equal(narrow.double(), value):
            return narrow
    return value.clone()
