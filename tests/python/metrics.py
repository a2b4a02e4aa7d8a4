"""LPIPS, SSIM and PSNR from their definitions. Images are RGB, 0-255, NCHW; one number each."""

import torch

LPIPS_TAPS = {
    "alexnet": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
}
LPIPS_CHANNELS = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}
# Zhang et al. 2018, version 0.1 of their package: images in [-1, 1] are shifted and scaled.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


def lpips(features, taps, heads, a, b):
    """`features` takes RGB 0-255 into ImageNet units itself, so LPIPS's own scaling is undone."""

    def activations(rgb):
        channel = lambda v: torch.tensor(v).view(1, 3, 1, 1)  # noqa: E731
        scaled = ((rgb / 127.5 - 1) - channel(SHIFT)) / channel(SCALE)
        mean, std = channel((0.485, 0.456, 0.406)), channel((0.229, 0.224, 0.225))
        found = features((scaled * std + mean) * 255.0)
        return [found[t] for t in taps]

    total = 0
    for i, (x, y) in enumerate(zip(activations(a), activations(b))):
        unit = lambda f: f / ((f**2).sum(1, keepdim=True).sqrt() + 1e-10)  # noqa: E731
        difference = (unit(x) - unit(y)) ** 2
        weighted = (difference * heads[f"lin{i}.weight"]).sum(1)  # a 1x1 convolution to one channel
        total = total + weighted.mean(dim=(1, 2))
    return total


def ssim(a, b, size=11, sigma=1.5, peak=255.0):
    """Wang et al. 2004, whole windows only, mean over positions and channels; in float64."""
    a, b = a.double(), b.double()
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-(offsets**2) / (2 * sigma**2))
    window = torch.outer(line, line) / line.sum() ** 2

    def mean(x):
        return torch.einsum("nchwij,ij->nchw", x.unfold(2, size, 1).unfold(3, size, 1), window)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    value = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return value.mean(dim=(1, 2, 3))


def psnr(a, b, peak=255.0):
    error = ((a.double() - b.double()) ** 2).mean(dim=(1, 2, 3))
    return 10 * torch.log10(peak**2 / error)
