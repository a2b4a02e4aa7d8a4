"""The work `pairs`: the mean Euclidean distance over all pairs of 2,000 images of 3x227x227.

Usage: pairs.py FOLDER cdist|gram

cdist: torch.cdist of 250 rows against all, so that memory stays small. gram: |a|^2 + |b|^2 - 2ab of
centred rows, a product for each block of the upper triangle.
"""

import sys

import torch

import worker

IMAGES, LENGTH = 2_000, 3 * 227 * 227
CHUNK = 250
ROWS, COLUMNS = 500, 32_768


def cdist(x):
    total = 0.0
    for rows in x.split(CHUNK):
        total += torch.cdist(rows, x).sum(dtype=torch.float64).item()
    return total / (len(x) * (len(x) - 1))


def gram(x):
    n = len(x)
    products = torch.zeros(n, n, dtype=torch.float64)
    for columns in x.split(COLUMNS, dim=1):
        centred = columns - columns.mean(0)
        for i in range(0, n, ROWS):
            products[i : i + ROWS, i:] += centred[i : i + ROWS] @ centred[i:].T
    squares = products.diagonal()
    square = squares[:, None] + squares - 2 * products
    return 2 * square.clamp_(min=0).sqrt_().triu(1).sum().item() / (n * (n - 1))


def main():
    distance = {"cdist": cdist, "gram": gram}[sys.argv[2]]
    torch.manual_seed(1)
    x = torch.rand(IMAGES, LENGTH)
    facts = {"precision": "fp32", "threads": torch.get_num_threads()}
    facts["checks"] = [{"mean distance": distance(x)}]
    worker.serve(facts, lambda: distance(x))


if __name__ == "__main__":
    main()
