"""Loss terms under each named reduction, and the paper's normalised error."""

import math

import torch
import torch.nn.functional as F

REDUCTIONS = ("caffe", "paper", "mean")


def squared_distance(a, b, reduction):
    """Feature and image loss.

    caffe: 1/(2N) sum; paper: the sum of Eqs. 2 and 5, over samples too; mean: over all elements.
    """
    total = ((a - b) ** 2).sum()
    return {"caffe": total / (2 * a.shape[0]), "paper": total, "mean": total / a.numel()}[reduction]


def feature_distance(a, b, how, reduction):
    """Of maps' channels: "absolute"; or of each image, "cosine" and "unit" (LPIPS without heads) averaged over positions."""
    if how == "absolute":
        total = (a - b).abs().sum()
        return {"caffe": total / len(a), "paper": total, "mean": total / a.numel()}[reduction]
    if how == "cosine":
        each = 1 - F.cosine_similarity(a, b, dim=1)
    else:
        each = ((a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)) ** 2).sum(1)
    each = each.flatten(1).mean(1)
    return each.sum() if reduction == "paper" else each.mean()


def cross_entropy(logits, label, reduction):
    """-log softmax(logits)[label]: summed over samples in the paper, else their mean."""
    nll = torch.logsumexp(logits, dim=1) - logits[:, label]
    return nll.sum() if reduction == "paper" else nll.mean()


def adversarial(fake_logits, reduction):
    """Eq. 4: the generator wants its images to be called real (0)."""
    return cross_entropy(fake_logits, 0, reduction)


def discriminating(real_logits, fake_logits, reduction):
    """Eq. 3's two terms, (real, fake)."""
    return cross_entropy(real_logits, 0, reduction), cross_entropy(fake_logits, 1, reduction)


def distance(a, b):
    return math.sqrt(sum((float(p) - float(q)) ** 2 for p, q in zip(a.flatten(), b.flatten())))


def normalised_error(found, truth):
    """Percent, Table 2: mean distance over samples by the mean over pairs of different samples."""
    n = len(truth)
    mean = sum(distance(found[i], truth[i]) for i in range(n)) / n
    pairs = [distance(truth[i], truth[j]) for i in range(n) for j in range(n) if i != j]
    return 100.0 * mean / (sum(pairs) / len(pairs))


def total_variation(images, reduction="caffe"):
    """Absolute differences to the right and below: summed, per image, or each direction's mean."""
    right, below = images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]
    if reduction == "mean":
        return right.abs().mean() + below.abs().mean()
    total = right.abs().sum() + below.abs().sum()
    return total if reduction == "paper" else total / len(images)


def apart(a, b):
    """Mean absolute difference of each pair."""
    return torch.stack([(p - q).abs().mean() for p, q in zip(a, b)])


def diversity(images, noises, limit, reduction="caffe"):
    """Of two batches: how far apart each pair is by how far its noises are, at most `limit`; a reward."""
    each = torch.minimum(apart(*images) / apart(*noises), torch.tensor(float(limit)))
    return each.sum() if reduction == "paper" else each.mean()
