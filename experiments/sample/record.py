#!/usr/bin/env python3
"""Records features of the sample photos, as another program would record its own.

    PYTHONPATH=third_party/py python3 experiments/sample/record.py [PHOTOS WEIGHTS OUT.safetensors]

Each photo is cut to its largest centred square and scaled to 128 pixels; torchvision AlexNet's
pool5 (256x3x3) is averaged over positions: 256 numbers for a photo, under the photo's path.
Needs PyTorch (`cargo xtask setup --torch full`).
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}


def load_square(path, size=128):
    """RGB, 0-255, [3, size, size]: the largest centred square, as `deepsim-data prepare` cuts it."""
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = ((d - side) // 2 for d in image.size)
    square = image.resize((size, size), Image.BICUBIC, box=(left, top, left + side, top + side))
    return torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(size, size, 3).permute(2, 0, 1)


def responses(w, rgb):
    """256 numbers for each image [N,3,H,W]."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    x = (rgb / 255 - mean) / std
    for layer, stride, padding, pool in ((0, 4, 2, True), (3, 1, 2, True), (6, 1, 1, False), (8, 1, 1, False), (10, 1, 1, True)):
        x = F.relu(F.conv2d(x, w[f"features.{layer}.weight"], w[f"features.{layer}.bias"], stride, padding))
        if pool:
            x = F.max_pool2d(x, 3, 2)
    return x.mean(dim=(2, 3))


def main(photos="data/photos", weights="weights/alexnet-lpips.safetensors", out="data/responses.safetensors"):
    folder, w = Path(photos), load_file(weights)
    features = {}
    with torch.no_grad():
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS):
            name = path.relative_to(folder).as_posix()
            features[name] = responses(w, load_square(path)[None].float())[0].clone()
    save_file(features, out)
    print(f"{len(features)} photos, features of {len(next(iter(features.values())))} numbers, in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
