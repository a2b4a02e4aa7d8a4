"""The work `neighbours`: the 5 nearest of 50,000 vectors of 4,096 values for 1,000 queries by faiss.

Usage: neighbours.py FOLDER. Filling the index is part of the work.
"""

import os

# The OpenBLAS in faiss's wheel is older than many processors and takes them for ones without
# AVX-512; it is read when faiss is imported.
if "avx512f" in open("/proc/cpuinfo").read():
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")

import faiss
import torch

import worker

REFERENCES, QUERIES, LENGTH, NEAREST = 50_000, 1_000, 4_096, 5


def main():
    faiss.omp_set_num_threads(torch.get_num_threads())
    torch.manual_seed(1)
    references = torch.randn(REFERENCES, LENGTH).numpy()
    queries = torch.randn(QUERIES, LENGTH).numpy()

    def search():
        index = faiss.IndexFlatL2(LENGTH)
        index.add(references)
        return index.search(queries, NEAREST)

    squared, indices = search()
    check = {"mean index": float(indices.mean()), "mean squared distance": float(squared.mean())}
    worker.serve({"threads": faiss.omp_get_max_threads(), "checks": [check]}, search)


if __name__ == "__main__":
    main()
