#!/usr/bin/env bash
# Everything that needs a GPU, in about 8 minutes on one H200 with 16 cores: the CUDA tests, then fc6_b64 in bf16 by
# ours (with CUDA graphs), ours without, tuned PyTorch, and torch.compile with CUDA graphs, in turn in one run.
#
# Built before, on any machine with this checkout, `cargo xtask setup --torch full` and `cargo xtask setup --only nccl`:
#   tools/bench/gpu.sh build
# It puts three programs in target/gpu: the tests, our worker, and the benchmark. Carry the checkout and that folder.
#
# Then on the machine with the GPU, in the same checkout, without a network and without cargo:
#   tools/bench/gpu.sh run [FOLDER]
# It writes bench.json, and what the tests and the benchmark said, to FOLDER (target/gpu if left out). It needs python3
# with safetensors and with PyTorch of the same line as the programs (2.13, CUDA), in third_party/py or among python3's own
# packages. torch.compile needs a C compiler there; without one the benchmark says so and goes on.
# DEEPSIM_GPU_MODE=max-autotune asks for torch.compile's longer search.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
programs=target/gpu

build() {
    mkdir -p "$programs"
    cargo build --release --package deepsim-bench --features cuda
    cp target/release/deepsim-bench "$programs/"
    cargo build --release --package deepsim-lab
    cp target/release/deepsim-lab "$programs/"
    # Where cargo puts a test's program is in its messages alone.
    local test
    test=$(cargo test --release --no-run --package deepsim-train --features cuda --test cuda \
        --message-format json | python3 -c '
import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and made["target"]["name"] == "cuda":
        print(made["executable"])')
    cp "$test" "$programs/cuda-tests"
    ls -l "$programs"
}

run() {
    local out=${1:-$programs}
    mkdir -p "$out"
    if [ ! -e third_party/py ]; then
        mkdir -p third_party
        ln -s "$(python3 -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')" third_party/py
    fi
    PYTHONPATH=third_party/py python3 -c '
import torch
assert torch.__version__.startswith("2.13."), f"PyTorch 2.13 is needed, this is {torch.__version__}"
assert torch.cuda.is_available(), "PyTorch finds no GPU"
print(torch.__version__, torch.cuda.get_device_name())'
    # The programs look beside their own folder in target/; libtorch finds CUDA by itself.
    LD_LIBRARY_PATH="$PWD/third_party/py/torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export LD_LIBRARY_PATH
    local failed=0
    # CARGO_MANIFEST_DIR: where the programs find the checkout.
    CARGO_MANIFEST_DIR="$PWD/crates/deepsim-train" timeout 180 "$programs/cuda-tests" --ignored --test-threads 1 2>&1 |
        tee "$out/tests.txt" || failed=1
    CARGO_MANIFEST_DIR="$PWD/tools/lab" timeout 300 "$programs/deepsim-lab" bench --device cuda --precision bf16 --only fc6_b64 --rounds 25 \
        --compile-mode "${DEEPSIM_GPU_MODE:-reduce-overhead}" --worker "$programs/deepsim-bench" \
        --json "$out/bench.json" 2>&1 | tee "$out/bench.txt" || failed=1
    return "$failed"
}

case "${1:-}" in
build) build ;;
run) run "${2:-}" ;;
*)
    echo "usage: tools/bench/gpu.sh build | run [FOLDER]" >&2
    exit 2
    ;;
esac
