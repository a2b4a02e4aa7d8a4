"""TorchScript modules for the tests, with what PyTorch itself computes with them.

    scripts.py FOLDER

writes `traced.pt` (a small convolutional network whose parameters require gradients), `training.pt`
(the same, scripted and left in training mode, with batch normalisation and dropout), `parts.pt` (scripted: returns a tuple), `named.pt`
(scripted: returns a dictionary), `tokens0.pt`, `tokens1.pt` and `tokens5.pt` (so many tokens in front of those of the map), modules that are wrong in one way each, `noisy.pt` (prints and warns, as soon
as it is loaded), `inplace.pt` (changes its input), `kept.pt` (returns the same memory each time), `half.pt`, `bfloat16.pt`,
`double.pt` (the types of their output), `weights.pt` and `old-weights.pt` (state dicts of both forms of torch.save), and
`parity.safetensors`: images `rgb` (RGB 0-255), `up`, and for each UNITS `y/UNITS` and `gx/UNITS`,
the gradient of sum(y * up) with regard to the RGB image.
"""

import sys
import warnings
from typing import Dict, Tuple

import torch
from safetensors.torch import save_file
from torch import nn

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
CAFFE = torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)

UNITS = {
    "rgb-0-255": lambda rgb: rgb,
    "rgb-0-1": lambda rgb: rgb / 255,
    "rgb-imagenet": lambda rgb: (rgb / 255 - MEAN) / STD,
    "bgr-caffe": lambda rgb: rgb.flip(1) - CAFFE,
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 5, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 3, stride=2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = torch.tanh(self.norm(self.first(x)))
        return torch.tanh(self.second(self.drop(x)))


class Parts(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x) -> Tuple[torch.Tensor, torch.Tensor]:
        y = self.net(x)
        return y, y.mean(dim=[2, 3])


class Named(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x) -> Dict[str, torch.Tensor]:
        y = self.net(x)
        return {"map": y, "pooled": y.mean(dim=[2, 3])}


class Tokens(nn.Module):
    """As transformers return them: some of their own, then one for each position."""

    def __init__(self, net: nn.Module, leading: int):
        super().__init__()
        self.net = net
        self.leading = leading

    def forward(self, x):
        y = self.net(x).flatten(2).transpose(1, 2)
        return torch.cat([y[:, : self.leading] + 1.0, y], dim=1)


class Noisy(nn.Module):
    """Says that it runs: when it is loaded, and when it is called."""

    def __init__(self):
        super().__init__()
        self.marked = True

    @torch.jit.export
    def __getstate__(self) -> Tuple[bool, bool]:
        return (self.marked, self.training)

    @torch.jit.export
    def __setstate__(self, state: Tuple[bool, bool]):
        print("THE MODULE RUNS")
        self.marked = state[0]
        self.training = state[1]

    def forward(self, x):
        print("THE MODULE RUNS", "\x1b[31mred")
        warnings.warn("THE MODULE WARNS \x1b[31mred")
        return nn.functional.avg_pool2d(x, 8)


class InPlace(nn.Module):
    def forward(self, x):
        x.mul_(2.0).clamp_(-300.0, 300.0)
        return nn.functional.avg_pool2d(x, 8)


class Kept(nn.Module):
    """Returns a buffer that each call writes into."""

    def __init__(self):
        super().__init__()
        self.register_buffer("made", torch.zeros(1))

    def forward(self, x):
        y = x.mean(dim=[2, 3])
        if self.made.shape != y.shape:
            self.made = torch.zeros_like(y)
        self.made.copy_(y)
        return self.made


class Typed(nn.Module):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        return nn.functional.avg_pool2d(x, 8).to(self.dtype)


class Fixed(nn.Module):
    """Traced, it works for one batch size alone."""

    def forward(self, x):
        return x.reshape(int(x.shape[0]), -1)[:, :48]


class Wrong(nn.Module):
    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "three":
            return x.mean(dim=1)[:, :61]  # tokens of no square map
        if self.how == "batch":
            return x.mean(dim=[2, 3]).reshape(1, -1)
        if self.how == "integers":
            return x.mean(dim=[2, 3]).to(torch.int64)
        if self.how == "nan":
            return x.mean(dim=[2, 3]) * float("nan")
        if self.how == "detached":
            return x.mean(dim=[2, 3]).detach()
        raise RuntimeError("this module always fails")


def main(folder):
    torch.manual_seed(3)
    torch.set_num_threads(1)
    net = Net().eval()
    net.norm.running_mean.uniform_(-0.3, 0.3)
    net.norm.running_var.uniform_(0.5, 2.0)
    rgb = torch.rand(3, 3, 64, 64) * 255
    tensors = {"rgb": rgb}
    for name, units in UNITS.items():
        # Keep each input near unit size, or tanh has no gradient left to compare.
        scale = 1.0 if name in ("rgb-0-1", "rgb-imagenet") else 0.01
        scaled = torch.nn.Sequential(Scale(scale), net).eval()
        torch.jit.script(scaled).save(f"{folder}/{name}.pt")
        leaf = rgb.clone().requires_grad_()
        y = scaled(units(leaf))
        up = torch.randn(y.shape) if "up" not in tensors else tensors["up"]
        (gx,) = torch.autograd.grad((y * up).sum(), leaf)
        tensors.update({"up": up, f"y/{name}": y.detach(), f"gx/{name}": gx})
    torch.jit.trace(net, torch.zeros(1, 3, 64, 64)).save(f"{folder}/traced.pt")
    torch.jit.script(Parts(net)).save(f"{folder}/parts.pt")
    torch.jit.script(Named(net)).save(f"{folder}/named.pt")
    for leading in (0, 1, 5):
        torch.jit.script(Tokens(net, leading)).save(f"{folder}/tokens{leading}.pt")
    for how in ("three", "batch", "integers", "nan", "detached", "fails"):
        torch.jit.script(Wrong(how)).save(f"{folder}/{how}.pt")
    with torch.no_grad():
        tensors["y/traced"] = net(UNITS["rgb-0-1"](rgb))
    torch.jit.script(Noisy()).save(f"{folder}/noisy.pt")
    torch.jit.script(InPlace()).save(f"{folder}/inplace.pt")
    torch.jit.script(Kept()).save(f"{folder}/kept.pt")
    for name in ("half", "bfloat16", "double"):
        torch.jit.script(Typed(getattr(torch, name))).save(f"{folder}/{name}.pt")
    torch.jit.trace(Fixed(), torch.zeros(2, 3, 64, 64)).save(f"{folder}/fixed.pt")
    torch.jit.trace(Fixed(), torch.zeros(4, 3, 64, 64)).save(f"{folder}/fixed4.pt")
    dropping = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.Dropout(0.01))
    torch.jit.trace(dropping, torch.zeros(1, 3, 64, 64), check_trace=False).save(f"{folder}/dropping.pt")
    norm = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.BatchNorm2d(4))
    torch.jit.trace(norm, torch.zeros(2, 3, 64, 64), check_trace=False).save(f"{folder}/norm.pt")
    torch.save(net.state_dict(), f"{folder}/weights.pt")
    torch.save(net.state_dict(), f"{folder}/old-weights.pt", _use_new_zipfile_serialization=False)
    training = torch.jit.script(net)
    training.train()
    training.save(f"{folder}/training.pt")
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, f"{folder}/parity.safetensors")


class Scale(nn.Module):
    def __init__(self, by: float):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x * self.by


if __name__ == "__main__":
    main(sys.argv[1])
