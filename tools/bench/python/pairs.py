"""The work `pairs`: the mean Euclidean distance over all pairs of 2,000 pictures of 3x227x227.

Usage: pairs.py FOLDER cdist|gram

cdist: torch.cdist of 250 rows against all, so that memory stays small. gram: |a|^2 + |b|^2 - 2ab of
centred rows, blocks of the upper triangle only.
"""

import sys

import torch

import worker

PICTURES, LENGTH = 2_000, 3 * 227 * 227
CHUNK = 250


def cdist(x):
    total = 0.0
    for rows in x.split(CHUNK):
        total += torch.cdist(rows, x).sum(dtype=torch.float64).item()
    return total / (len(x) * (len(x) - 1))


def gram(x):
    x = x - x.mean(0)
    squares = x.square().sum(1, dtype=torch.float64)
    total = 0.0
    for i in range(0, len(x), CHUNK):
        products = x[i : i + CHUNK] @ x[i:].T
        square = squares[i : i + CHUNK, None] + squares[None, i:] - 2 * products.double()
        total += square.clamp_(min=0).sqrt_().triu(1).sum().item()
    return 2 * total / (len(x) * (len(x) - 1))


def main():
    distance = {"cdist": cdist, "gram": gram}[sys.argv[2]]
    torch.manual_seed(1)
    x = torch.rand(PICTURES, LENGTH)
    facts = {"precision": "fp32", "threads": torch.get_num_threads()}
    facts["checks"] = [{"mean distance": distance(x)}]
    worker.serve(facts, lambda: distance(x))


if __name__ == "__main__":
    main()
