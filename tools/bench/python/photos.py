"""Makes a folder of JPEGs that are like ILSVRC's: 500x375 (or 375x500), 106 KB each at most.

Usage: photos.py SOURCE FOLDER. Does nothing if FOLDER is complete. Photos smaller than that are
enlarged; the quality is chosen for each so that its file comes near that size; smooth photos stay smaller at any
quality that is allowed, so that the mean is about 72 KB with the sample photos.
"""

import io
import pathlib
import random
import sys

from PIL import Image

COUNT = 200
LONG, SHORT = 500, 375
BYTES = 106_000


def cut(photo, rng):
    """A random window of the wanted shape, scaled to the wanted size."""
    width, height = (LONG, SHORT) if photo.width >= photo.height else (SHORT, LONG)
    scale = min(photo.width / width, photo.height / height) * rng.uniform(0.6, 1.0)
    w, h = width * scale, height * scale
    x, y = rng.uniform(0, photo.width - w), rng.uniform(0, photo.height - h)
    return photo.resize((width, height), Image.Resampling.LANCZOS, box=(x, y, x + w, y + h))


def encode(image):
    """The JPEG of the highest quality that does not exceed the size."""
    low, high = 30, 98
    best = b""
    while low <= high:
        quality = (low + high) // 2
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= BYTES or not best:
            best = buffer.getvalue()
        if buffer.tell() <= BYTES:
            low = quality + 1
        else:
            high = quality - 1
    return best


def main():
    source, folder = map(pathlib.Path, sys.argv[1:])
    names = [folder / f"{i:04}.jpg" for i in range(COUNT)]
    if all(name.exists() for name in names):
        return
    folder.mkdir(parents=True, exist_ok=True)
    photos = sorted(p for p in source.rglob("*") if p.suffix in (".webp", ".jpg", ".jpeg", ".png"))
    if not photos:
        raise SystemExit(f"no photos in {source}")
    rng = random.Random(1)
    for i, name in enumerate(names):
        with Image.open(photos[i % len(photos)]) as photo:
            data = encode(cut(photo.convert("RGB"), rng))
        unfinished = name.with_suffix(".part")
        unfinished.write_bytes(data)
        unfinished.rename(name)


if __name__ == "__main__":
    main()
