"""JPEGs of every sampling, scan script, restart setting and odd size, and what Pillow makes of each.

jpeg.py CJPEG OUT all|few: writes NAME.jpg, NAME.jpg.rgb where Pillow reads it, and index.txt with a line
`NAME WIDTH HEIGHT read|refused` for each.
"""

import subprocess
import sys

import numpy as np
from PIL import Image, ImageFile

assert not ImageFile.LOAD_TRUNCATED_IMAGES
cjpeg, out, many = sys.argv[1:4]

SAMPLINGS = [
    "1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "2x4", "4x4", "3x1", "1x3", "3x2",
    "2x2,2x1,1x2", "2x1,1x2,1x1", "1x1,2x2,2x2", "2x2,1x1,2x2",
]
assert len(SAMPLINGS) == 16

# One colour a scan also where a scan of all would have too many blocks.
PROGRESSIVE = """0: 0-0, 0, 1; 1: 0-0, 0, 1; 2: 0-0, 0, 1; 0: 1-5, 0, 2; 2: 1-63, 0, 1; 1: 1-63, 0, 1;
0: 6-63, 0, 2; 0: 1-63, 2, 1; 0: 0-0, 1, 0; 1: 0-0, 1, 0; 2: 0-0, 1, 0; 2: 1-63, 1, 0; 1: 1-63, 1, 0; 0: 1-63, 1, 0;"""
SCRIPTS = {
    "one": None,
    "each": "0; 1; 2;",
    "y-cc": "0; 1 2;",
    "chroma-first": "1; 2; 0;",
    "spectral": "0: 0-0, 0, 0; 1: 0-0, 0, 0; 2: 0-0, 0, 0; 0: 1-9, 0, 0; 0: 10-63, 0, 0; 1: 1-63, 0, 0; 2: 1-63, 0, 0;",
    "progressive": PROGRESSIVE,
}
RESTARTS = {"none": [], "row": ["-restart", "1"], "3": ["-restart", "3B"], "7": ["-restart", "7B"]}
SIZES = [(51, 37), (16, 33), (1, 9)]
if many == "few":
    SAMPLINGS, SIZES = ["1x1", "2x1", "1x2", "2x2"], SIZES[:1]


def photo(width, height):
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(width * height).integers(-25, 26, (height, width, 3))
    base = np.stack([x * 5 % 256, y * 6 % 256, (x + y) * 4 % 256], 2)
    return np.clip(base + noise, 0, 255).astype(np.uint8)


index = open(f"{out}/index.txt", "w")


def add(name, data):
    path = f"{out}/{name}.jpg"
    with open(path, "wb") as file:
        file.write(data)
    try:
        image = Image.open(path)
        image.load()
        rgb = image.convert("RGB")
        width, height = rgb.size
        with open(f"{path}.rgb", "wb") as file:
            file.write(rgb.tobytes())
        index.write(f"{name}.jpg {width} {height} read\n")
    except (OSError, SyntaxError):
        index.write(f"{name}.jpg 0 0 refused\n")


def encode(pixels, *arguments):
    height, width = pixels.shape[:2]
    kind = "P6" if pixels.ndim == 3 else "P5"
    ppm = f"{kind} {width} {height} 255\n".encode() + pixels.tobytes()
    done = subprocess.run([cjpeg, "-quality", "85", *arguments], input=ppm, capture_output=True)
    # cjpeg refuses a scan of all colours that has more than ten blocks.
    return done.stdout if done.returncode == 0 else None


for script, text in SCRIPTS.items():
    if text:
        with open(f"{out}/{script}.scans", "w") as file:
            file.write(text)
    scans = ["-scans", f"{out}/{script}.scans"] if text else []
    for sampling in SAMPLINGS:
        for restart, options in RESTARTS.items():
            for width, height in SIZES:
                data = encode(photo(width, height), "-sample", sampling, *options, *scans)
                if data:
                    add(f"{sampling}_{script}_{restart}_{width}x{height}", data)

# Other colours: grey, RGB, CMYK, YCCK, with Adobe's marker, a wrong one, and none.
whole = photo(51, 37)
add("grey", encode(whole[:, :, 0]))
add("grey-sampled", encode(whole[:, :, 0], "-sample", "2x2"))
add("grey-progressive", encode(whole[:, :, 0], "-progressive", "-restart", "3B"))
with open(f"{out}/many.scans", "w") as file:
    file.write("".join(f"0: {k}-{k}, 0, 0;\n" for k in range(64)))
add("grey-64-scans", encode(whole[:, :, 0], "-scans", f"{out}/many.scans"))
add("default-progressive", encode(whole, "-progressive"))
add("rgb", encode(whole, "-rgb"))
add("optimised", encode(whole, "-optimize", "-dct", "float"))


def adobe(data, transform):
    """With this colour transform in Adobe's marker, or without the marker."""
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    if transform is None:
        return data[:at] + data[at + 16 :]
    return data[: at + 15] + bytes([transform]) + data[at + 16 :]


Image.fromarray(whole).convert("CMYK").save(f"{out}/cmyk.tmp", "JPEG", quality=92)
cmyk = open(f"{out}/cmyk.tmp", "rb").read()
rgb = encode(whole, "-rgb")
for name, data in [("cmyk", cmyk), ("rgb", rgb)]:
    for transform in [0, 1, 2, None]:
        if b"Adobe" in data:
            add(f"{name}-adobe-{transform}", adobe(data, transform))
for subsampling in [0, 1, 2]:
    for progressive in [False, True]:
        path = f"{out}/{subsampling}{progressive}.tmp"
        Image.fromarray(whole).convert("CMYK").save(
            path, "JPEG", subsampling=subsampling, progressive=progressive
        )
        add(f"cmyk-{subsampling}-{progressive}", open(path, "rb").read())
        add(f"ycck-{subsampling}-{progressive}", adobe(open(path, "rb").read(), 2))
# Coding that no image on the web has.
for name, arguments in [("arithmetic", ["-arithmetic"]), ("lossless", ["-lossless", "1"])]:
    data = encode(whole, *arguments)
    if data:
        add(name, data)
