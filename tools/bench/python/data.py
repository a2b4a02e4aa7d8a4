"""The work `data`: JPEGs to random crops of 227 pixels as tensors, one process, one thread.

Usage: data.py FOLDER torchvision|crop-aware

torchvision: PIL decodes, Resize(256) of the short side, RandomCrop(227), uint8 tensor: what a
training script has. crop-aware: Pillow scales only the centre square to 256x256 (bicubic), then a
random crop: what ours does, pixel for pixel but for rounding.
"""

import pathlib
import random
import sys

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

import worker

SIZE, CROP = 256, 227


def pipeline(kind):
    if kind == "torchvision":
        return transforms.Compose(
            [transforms.Resize(SIZE), transforms.RandomCrop(CROP), transforms.PILToTensor()]
        )

    def crop_aware(photo):
        short = min(photo.size)
        x, y = ((side - short) // 2 for side in photo.size)
        box = (x, y, x + short, y + short)
        square = photo.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
        x, y = (random.randint(0, SIZE - CROP) for _ in range(2))
        pixels = np.asarray(square)[y : y + CROP, x : x + CROP]
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    return crop_aware


def main():
    folder, kind = sys.argv[1:]
    torch.set_num_threads(1)
    random.seed(1)
    torch.manual_seed(1)
    files = sorted(pathlib.Path(folder).glob("*.jpg"))
    transform = pipeline(kind)

    def load(file):
        with Image.open(file) as photo:
            return transform(photo.convert("RGB"))

    def epoch():
        random.shuffle(files)
        for i in range(0, len(files), 20):
            torch.stack([load(file) for file in files[i : i + 20]])

    epoch()
    worker.serve({"amount": len(files), "threads": 1}, epoch)


if __name__ == "__main__":
    main()
