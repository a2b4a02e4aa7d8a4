"""Distance of a forward pass from the points where its gradient jumps.

A ReLU unit at 1e-8, or two equal candidates of a max pool, may fall on different sides in two
correct fp32 implementations; one such unit among 300,000 moves a gradient by 1e-3. Inputs are
therefore drawn until every unit keeps a distance that rounding cannot cross. Nothing else about
the comparison depends on it.
"""

import contextlib

import torch
import torch.nn.functional as F

SAFE = 1e-6  # in standard deviations of the layer; fp32 sums of some thousand terms stay below

_margins = None


@contextlib.contextmanager
def watched():
    """Collects, while open, the margin of each ReLU and pool passed."""
    global _margins
    _margins = found = []
    try:
        yield found
    finally:
        _margins = None


def note_relu(x):
    if _margins is not None:
        with torch.no_grad():
            _margins.append((x.abs().min() / x.std()).item())


def note_relu6(x):
    if _margins is not None:
        with torch.no_grad():
            _margins.append((torch.minimum(x.abs(), (x - 6).abs()).min() / x.std()).item())


def note_difference(a, b):
    """|a - b| has its kink where they are equal, and as much rounding as each of them."""
    if _margins is not None:
        with torch.no_grad():
            _margins.append(((a - b).abs().min() / torch.maximum(a.std(), b.std())).item())


def note_pool(x, kernel=3):
    """Only windows with a positive maximum count: after a ReLU, all-zero windows tie harmlessly."""
    if _margins is not None:
        with torch.no_grad():
            height, width = x.shape[2:]
            pad = [0, (kernel - width) % 2, 0, (kernel - height) % 2]
            windows = F.pad(x, pad, value=-1e30).unfold(2, kernel, 2).unfold(3, kernel, 2)
            top = windows.flatten(4).topk(2, dim=-1).values
            gap = (top[..., 0] - top[..., 1])[top[..., 0] > 0]
            if gap.numel():
                _margins.append((gap.min() / x.std()).item())


def draw_safely(draw, forward, tries=60):
    """The first of `draw()`'s inputs whose `forward(input)` keeps SAFE; and its margin."""
    best = (-1.0, None)
    for _ in range(tries):
        x = draw()
        with watched() as margins, torch.no_grad():
            forward(x)
        margin = min(margins, default=float("inf"))
        if margin >= SAFE:
            return x, margin
        best = max(best, (margin, x), key=lambda pair: pair[0])
    return best[1], best[0]
