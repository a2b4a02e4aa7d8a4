"""TorchScript modules for the tests, with what PyTorch itself computes with them.

    scripts.py FOLDER

writes `traced.pt` (a small convolutional network whose parameters require gradients), `training.pt`
(the same, scripted and left in training mode, with batch normalisation and dropout), `parts.pt` (scripted: returns a tuple), `named.pt`
(scripted: returns a dictionary), modules that are wrong in one way each, and
`parity.safetensors`: pictures `rgb` (RGB 0-255), `up`, and for each UNITS `y/UNITS` and `gx/UNITS`,
the gradient of sum(y * up) with regard to the RGB picture.
"""

import sys
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


class Wrong(nn.Module):
    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "three":
            return x.mean(dim=1)
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
    for how in ("three", "batch", "integers", "nan", "detached", "fails"):
        torch.jit.script(Wrong(how)).save(f"{folder}/{how}.pt")
    with torch.no_grad():
        tensors["y/traced"] = net(UNITS["rgb-0-1"](rgb))
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
