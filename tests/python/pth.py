"""Writes state dicts with PyTorch, and beside each the values that must be read from it.

pth.py FOLDER: FOLDER/NAME.pth and FOLDER/NAME.safetensors for each case; FOLDER/bad-NAME.pth for
files that must be refused.
"""

import collections
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

folder = Path(sys.argv[1])
torch.manual_seed(7)


def alexnet(classifier):
    features = [(0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3)]
    dict_ = collections.OrderedDict()
    for n, out, inp, k in features:
        dict_[f"features.{n}.weight"] = torch.randn(out, inp, k, k)
        dict_[f"features.{n}.bias"] = torch.randn(out)
    if classifier:
        for n, out, inp in [(1, 4096, 9216), (4, 4096, 4096), (6, 1000, 4096)]:
            # One value over and over: the file is long all the same, but quickly made.
            dict_[f"classifier.{n}.weight"] = torch.full((out, inp), 0.25 * n)
            dict_[f"classifier.{n}.bias"] = torch.randn(out)
    return dict_


class Small(torch.nn.Module):
    """A module with what state dicts have: parameters, buffers, a counter, shared weights."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.bn = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(5, 6)
        self.tied = torch.nn.Linear(5, 6)
        self.tied.weight = self.fc.weight


def views():
    base = torch.randn(1000)
    image = torch.randn(2, 5, 6, 3).permute(0, 3, 1, 2)
    return {
        "offset": base[17:37],
        "matrix": base[100:400].view(20, 15),
        "transposed": base[100:400].view(20, 15).t(),
        "strided": base[1::7],
        "expanded": base[3].expand(4, 3),
        "scalar": base[5],
        "one": base[6:7].view(1, 1, 1),
        "channels_last": image,
        "overlapping": base.as_strided((5, 4), (2, 1), 3),
    }


class Tensor(torch.Tensor):
    """A class of its own."""


def attributed():
    w = torch.randn(3)
    w.note = "an attribute"
    return w


def negatives():
    """Tensors whose stored values are the negatives of theirs: the mark is PyTorch's negative bit."""
    c = torch.randn(6, 2, dtype=torch.complex64)
    base = torch.randn(100)
    out = {
        "imaginary": torch.conj(c).imag,
        "view": torch._neg_view(base[3:9].view(2, 3)),
        "transposed": torch._neg_view(base[:12].view(3, 4)).t(),
        "twice": torch._neg_view(torch._neg_view(base[:4])),
        "half": torch._neg_view(torch.randn(5).half()),
        "double": torch._neg_view(torch.randn(5).double()),
        "zero": torch._neg_view(torch.zeros(2)),
        "plain": base[3:9],
        "parameter": torch.nn.Parameter(torch._neg_view(base[20:26]), requires_grad=False),
    }
    assert out["imaginary"].is_neg() and out["view"].is_neg() and not out["twice"].is_neg()
    return out


def hooked():
    w = torch.randn(3, requires_grad=True)
    return {"w": w, "real": torch.view_as_real(torch.randn(4, dtype=torch.complex64)), "part": torch.randn(4, dtype=torch.complex128).real}


small = Small()
cases = {
    "alexnet-features": alexnet(False),
    "alexnet": alexnet(True),
    "module": small.state_dict(),
    "views": views(),
    "parameters": {"p": torch.nn.Parameter(torch.randn(3, 2)), "q": torch.nn.Parameter(torch.randn(4), requires_grad=False)},
    "half": {"h": (torch.randn(50, 3) * 100).half(), "tiny": torch.tensor([6e-8, -6e-5]).half()},
    "bfloat16": {"b": torch.randn(41).bfloat16()},
    "double": {"d": torch.randn(13, 2).double()},
    "negative": negatives(),
    "gradients": hooked(),
    "mixed": {"w": torch.randn(3), "h": torch.randn(5).half()},
}
for name, dict_ in cases.items():
    for form, zipped in [("zip", True), ("old", False)]:
        if name == "alexnet" and not zipped:
            continue
        torch.save(dict_, folder / f"{name}-{form}.pth", _use_new_zipfile_serialization=zipped)
        floats = {k: v.detach().resolve_neg().float().contiguous().clone() for k, v in dict_.items() if v.is_floating_point()}
        save_file(floats, folder / f"{name}-{form}.safetensors")
for protocol in [3, 4, 5]:
    torch.save(cases["module"], folder / f"protocol{protocol}-zip.pth", pickle_protocol=protocol)
    save_file({k: v.detach().contiguous().clone() for k, v in cases["module"].items() if v.is_floating_point()}, folder / f"protocol{protocol}-zip.safetensors")

bad = {
    "module": small,
    "checkpoint": {"state_dict": small.state_dict(), "epoch": 3},
    "tensor": torch.randn(3),
    "list": [torch.randn(3)],
    "numbers": {"w": torch.randn(3), "epoch": 3},
    "integers": {"w": torch.randn(3), "ids": torch.arange(4)},
    "nan": {"w": torch.tensor([1.0, float("nan")])},
    "huge": {"w": torch.tensor([1.0, 1e300], dtype=torch.float64)},
    "empty": {},
    "nothing": {"w": torch.zeros(3, 0)},
    "complex": {"w": torch.zeros(3, dtype=torch.complex64)},
    "sparse": {"w": torch.eye(3).to_sparse()},
    "metadata": {"__metadata__": torch.zeros(3)},
    "complex-negative": {"w": torch.conj(torch.zeros(3, dtype=torch.complex64))},
    "quantized": {"w": torch.quantize_per_tensor(torch.randn(4), 0.1, 3, torch.qint8)},
    "sparse-rows": {"w": torch.eye(3).to_sparse_csr()},
    "float8": {"w": torch.randn(4).to(torch.float8_e4m3fn)},
    "unsigned": {"w": torch.arange(4).to(torch.uint16)},
    "meta": {"w": torch.empty(3, device="meta")},
    "nested": {"w": torch.nested.nested_tensor([torch.randn(2), torch.randn(3)])},
    "subclass": {"w": torch.randn(3).as_subclass(Tensor)},
    "attribute": {"w": attributed()},
}
for name, value in bad.items():
    for form, zipped in [("zip", True), ("old", False)]:
        torch.save(value, folder / f"bad-{name}-{form}.pth", _use_new_zipfile_serialization=zipped)
torch.jit.script(torch.nn.Linear(2, 3)).save(str(folder / "bad-script.pth"))
