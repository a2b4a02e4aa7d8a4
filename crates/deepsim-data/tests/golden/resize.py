"""Makes resize.json and resize.rgb beside it: what Pillow makes of a fixed pattern, columns first.

Usage: PYTHONPATH=third_party/py python3 crates/deepsim-data/tests/golden/resize.py
Run by hand and committed, so that the test needs no Python. The pattern is integer arithmetic that
the test repeats: gradients, single bright and dark pixels, and checks that make bicubic overshoot.

One pass at a time: left to itself Pillow 13.0 begins with the rows in some upright images, where
earlier ones begin with the columns always. What overshoots is cut off between the passes, so that
the order shows: by up to 26 grey levels in this pattern.
"""

import json
import pathlib

import PIL
from PIL import Image

SOURCES = [(64, 48), (37, 53), (131, 100), (96, 96), (33, 7), (5, 3), (1, 1)]
SIZES = [1, 13, 32, 45]


def value(x, y, c):
    if (x // 6 + y // 5) % 3 == 0:
        return 255 * ((x + y + c) % 2)
    if (x * 7 + y * 3) % 29 == 0:
        return 255 - 100 * c
    return (x * 11 + y * 5 + c * 80) % 256


def columns_first(image, window, size):
    left, top, right, bottom = window
    bicubic = Image.Resampling.BICUBIC
    narrow = image.resize((size, image.height), bicubic, box=(left, 0, right, image.height))
    return narrow.resize((size, size), bicubic, box=(0, top, size, bottom))


def main():
    folder = pathlib.Path(__file__).parent
    cases, pixels = [], bytearray()
    for width, height in SOURCES:
        source = bytes(value(x, y, c) for y in range(height) for x in range(width) for c in range(3))
        image = Image.frombytes("RGB", (width, height), source)
        short = min(width, height)
        x, y = (width - short) // 2, (height - short) // 2
        for size in SIZES:
            for mode, window in [
                ("squash", (0, 0, width, height)),
                ("short-crop", (x, y, x + short, y + short)),
            ]:
                if mode == "short-crop" and width == height:
                    continue  # the same as squash
                out = columns_first(image, window, size)
                cases.append({"width": width, "height": height, "mode": mode, "size": size})
                pixels += out.tobytes()
    facts = {"pillow": PIL.__version__, "filter": "BICUBIC", "cases": cases}
    (folder / "resize.json").write_text(json.dumps(facts, indent=1) + "\n")
    (folder / "resize.rgb").write_bytes(pixels)
    print(f"{len(cases)} cases, {len(pixels)} bytes")


if __name__ == "__main__":
    main()
