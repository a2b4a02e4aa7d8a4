"""PNG, WebP, GIF, BMP, TIFF and PNM in many forms, and the pixels of each.

With damage.py behind it, as one program with the argument OUT: writes files, NAME.rgb with the pixels, and index.txt with a line
`NAME WIDTH HEIGHT read|close|either|refused` for each: to be read with these pixels, close to them
(lossy WebP), refused where not read with them, or refused.

The pixels are Pillow's raw ones, or where Pillow drops bits those that went into the file, under
the rules of `deepsim_data::decode`: sixteen bits to eight rounded, grey as R = G = B, alpha on white.
"""

import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageFile

assert not ImageFile.LOAD_TRUNCATED_IMAGES
out = sys.argv[1]
index = open(f"{out}/index.txt", "w")
random = np.random.default_rng(7)


def eight(values):
    return (values.astype(np.int64) + 128) // 257


def over_white(colour, alpha):
    colour, alpha = colour.astype(np.int64), alpha.astype(np.int64)
    return (colour * alpha + 255 * (255 - alpha) + 127) // 255


def shown(pixels, alpha=None):
    """[h, w] or [h, w, 3] of 0-255, alpha [h, w]: RGB."""
    pixels = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, 2)
    return pixels if alpha is None else over_white(pixels, alpha[:, :, None])


def pillow(path):
    """Pillow's pixels, under the same rules."""
    image = Image.open(path)
    image.load()
    if image.mode.startswith("I"):
        return shown(eight(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        return shown(rgba[:, :, :3], rgba[:, :, 3])
    return np.asarray(image.convert("RGB"))


def note(name, pixels, verdict="read"):
    height, width = pixels.shape[:2]
    with open(f"{out}/{name}.rgb", "wb") as file:
        file.write(np.ascontiguousarray(pixels).astype(np.uint8).tobytes())
    index.write(f"{name} {width} {height} {verdict}\n")


def write(name, data, pixels=None, verdict="read"):
    with open(f"{out}/{name}", "wb") as file:
        file.write(data)
    if pixels is None:
        try:
            pixels = pillow(f"{out}/{name}")
        except (OSError, ValueError, SyntaxError):
            pixels, verdict = np.zeros((1, 1, 3)), "refused"
    note(name, pixels, verdict)


def save(name, image, verdict="read", **options):
    image.save(f"{out}/{name}", **options)
    note(name, pillow(f"{out}/{name}"), verdict)


def photo(width, height, channels, most=255):
    y, x = np.mgrid[0:height, 0:width]
    base = [x / width, y / height, (x + y) / (width + height), (x * 3 % width) / width]
    noise = random.random((height, width, 4)) * 0.2 - 0.1
    values = np.clip(np.stack(base, 2) + noise, 0, 1) * most
    return np.round(values[:, :, :channels]).astype(np.int64)


SIZES = [(37, 29), (1, 1), (8, 3), (5, 17)]
COLOURS = Image.fromarray(photo(37, 29, 3).astype(np.uint8))


# ---- PNG, written here: every colour type, depth, filter, interlaced or not, transparent colour
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(samples, bits):
    """[h, w * channels] samples of so many bits: rows of bytes."""
    if bits == 16:
        return samples.astype(">u2").view(np.uint8).reshape(len(samples), -1)
    if bits == 8:
        return samples.astype(np.uint8)
    ones = (samples[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(ones.reshape(len(samples), -1).astype(np.uint8), axis=1)


def filtered(rows, step, method):
    out, above = b"", np.zeros(rows.shape[1], np.int64)
    for number, row in enumerate(rows.astype(np.int64)):
        left = np.concatenate([np.zeros(step, np.int64), row])[: len(row)]
        corner = np.concatenate([np.zeros(step, np.int64), above])[: len(row)]
        guess = left + above - corner
        distance = [abs(guess - other) for other in (left, above, corner)]
        paeth = np.where(
            (distance[0] <= distance[1]) & (distance[0] <= distance[2]),
            left,
            np.where(distance[1] <= distance[2], above, corner),
        )
        kind = number % 5 if method == "all" else 0
        predicted = [0 * row, left, above, (left + above) // 2, paeth][kind]
        out += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    return out


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(samples, kind, bits, interlaced, extra=b""):
    height, width, channels = samples.shape
    step = max(1, channels * bits // 8)
    data = b""
    for x, y, dx, dy in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = samples[y::dy, x::dx]
        if part.size:
            data += filtered(packed(part.reshape(len(part), -1), bits), step, "all")
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_cases():
    kinds = {"grey": (0, 1), "rgb": (2, 3), "palette": (3, 1), "grey-alpha": (4, 2), "rgba": (6, 4)}
    depths = {"grey": [1, 2, 4, 8, 16], "palette": [1, 2, 4, 8]}
    for name, (kind, channels) in kinds.items():
        for bits in depths.get(name, [8, 16]):
            for interlaced in [False, True]:
                for width, height in SIZES:
                    most = 2**bits - 1
                    samples = photo(width, height, channels, most)
                    full = eight(samples) if bits == 16 else samples * 255 // most
                    title = f"{name}-{bits}-{'adam7' if interlaced else 'plain'}-{width}x{height}"
                    if name == "palette":
                        colours = random.integers(0, 256, (most + 1, 3))
                        extra = chunk(b"PLTE", colours.astype(np.uint8).tobytes())
                        pixels = colours[samples[:, :, 0]]
                        write(f"{title}.png", png(samples, kind, bits, interlaced, extra), shown(pixels))
                        alphas = random.integers(0, 256, max(1, most // 2))
                        extra += chunk(b"tRNS", alphas.astype(np.uint8).tobytes())
                        alpha = np.concatenate([alphas, np.full(256, 255)])[samples[:, :, 0]]
                        write(f"{title}-trns.png", png(samples, kind, bits, interlaced, extra), shown(pixels, alpha))
                        continue
                    alpha = full[:, :, -1] if channels in (2, 4) else None
                    colour = full[:, :, :1].repeat(3, 2) if channels < 3 else full[:, :, :3]
                    write(f"{title}.png", png(samples, kind, bits, interlaced), shown(colour, alpha))
                    if alpha is None:
                        clear = samples[height // 2, width // 2]
                        extra = chunk(b"tRNS", clear.astype(">u2").tobytes())
                        alpha = np.where((samples == clear).all(2), 0, 255)
                        write(f"{title}-trns.png", png(samples, kind, bits, interlaced, extra), shown(colour, alpha))
    # What the writer above makes, Pillow reads alike.
    for name in ["grey-8-adam7-37x29", "rgb-8-adam7-37x29", "palette-4-adam7-37x29-trns", "rgba-8-plain-37x29", "grey-16-plain-37x29"]:
        raw = np.fromfile(f"{out}/{name}.png.rgb", np.uint8)
        assert (raw == pillow(f"{out}/{name}.png").astype(np.uint8).ravel()).all(), name


# ---- WebP
def webp_cases():
    for width, height in [(37, 29), (1, 1), (16, 16), (33, 64), (130, 97)]:
        image = Image.fromarray(photo(width, height, 3).astype(np.uint8))
        clear = Image.fromarray(photo(width, height, 4).astype(np.uint8), "RGBA")
        size = f"{width}x{height}"
        for quality in [5, 40, 80, 100]:
            for method in [0, 4, 6]:
                save(f"lossy-{quality}-{method}-{size}.webp", image, quality=quality, method=method)
            for alpha in [100, 30]:
                save(f"lossy-alpha-{quality}-{alpha}-{size}.webp", clear, quality=quality, alpha_quality=alpha)
        for method in [0, 6]:
            save(f"lossless-{method}-{size}.webp", image, lossless=True, method=method)
            save(f"lossless-alpha-{method}-{size}.webp", clear, lossless=True, method=method)
            save(f"lossless-exact-{method}-{size}.webp", clear, lossless=True, method=method, exact=True)
        grey = image.convert("L").convert("RGB")
        save(f"lossless-grey-{size}.webp", grey, lossless=True)
        few = image.quantize(5).convert("RGB")
        save(f"lossless-few-{size}.webp", few, lossless=True)
        other = Image.fromarray(255 - np.asarray(image))
        for lossless in [False, True]:
            save(
                f"animated-{lossless}-{size}.webp", image, "read",
                save_all=True, append_images=[other], lossless=lossless, duration=50,
            )
        save(
            f"animated-alpha-{size}.webp", clear, "either",
            save_all=True, append_images=[other.convert("RGBA")], lossless=True, duration=50,
        )


# ---- GIF
def gif_cases():
    for colours in [2, 3, 4, 16, 200, 256]:
        palette = COLOURS.quantize(colours)
        for interlace in [0, 1]:
            save(f"plain-{colours}-{interlace}.gif", palette, interlace=interlace)
            save(f"clear-{colours}-{interlace}.gif", palette, interlace=interlace, transparency=1)
    other = Image.fromarray(255 - np.asarray(COLOURS))
    save("animated.gif", COLOURS, save_all=True, append_images=[other], duration=50)
    save("grey.gif", COLOURS.convert("L"))
    save("bits.gif", COLOURS.convert("1"))
    # A frame that does not fill the screen: what is around it is clear, which Pillow shows in a colour.
    data = bytearray(open(f"{out}/plain-16-0.gif", "rb").read())
    pixels = np.full((40, 50, 3), 255)
    pixels[3:32, 7:44] = pillow(f"{out}/plain-16-0.gif")
    data[6:10] = struct.pack("<HH", 50, 40)
    at = data.index(b"," + struct.pack("<HHHH", 0, 0, 37, 29))
    data[at + 1 : at + 5] = struct.pack("<HH", 7, 3)
    write("offset.gif", bytes(data), pixels)
    # Several graphic controls for one frame: programs agree where these do.
    data = open(f"{out}/clear-16-0.gif", "rb").read()
    at = data.index(b"!\xf9\x04")
    control = data[at : at + 8]
    write("control-twice.gif", data[:at] + control + data[at:], verdict="either")
    for title, other in [("none", control[:3] + b"\0" + control[4:]), ("another", control[:6] + bytes([control[6] ^ 3]) + control[7:])]:
        write(f"control-{title}.gif", data[:at] + other + data[at:], np.zeros((1, 1, 3)), "refused")
        write(f"control-{title}-behind.gif", data[: at + 8] + other + data[at + 8 :], np.zeros((1, 1, 3)), "refused")
    # A frame that reaches beyond the screen, and colours beyond the palette.
    data = bytearray(open(f"{out}/plain-16-0.gif", "rb").read())
    data[6:10] = struct.pack("<HH", 30, 20)
    write("beyond.gif", bytes(data), verdict="either")
    data = bytearray(open(f"{out}/plain-16-0.gif", "rb").read())
    data[10] = data[10] & 0xF8 | 1
    write("few-colours.gif", bytes(data[: 13 + 12] + data[13 + 48 :]), verdict="either")
    data[10] &= 0x7F
    write("no-palette.gif", bytes(data[:13] + data[13 + 48 :]), verdict="either")


# ---- BMP
def bmp(width, height, bits, rows, compression=0, palette=b"", masks=b"", size=40):
    colours = len(palette) // 4
    start = 14 + size + len(masks) + len(palette)
    if size == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        head = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(rows), 2835, 2835, colours, 0)
        head += b"\0" * (size - 40)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + masks + palette + rows


def padded(rows):
    return b"".join(bytes(row) + b"\0" * (-len(row) % 4) for row in rows)


def bmp_cases():
    save("plain.bmp", COLOURS)
    save("grey.bmp", COLOURS.convert("L"))
    save("bits.bmp", COLOURS.convert("1"))
    save("palette.bmp", COLOURS.quantize(77))
    save("alpha.bmp", Image.fromarray(photo(37, 29, 4).astype(np.uint8), "RGBA"), "either")
    for width, height in [(37, 29), (1, 1), (8, 3)]:
        size = f"{width}x{height}"
        for bits in [1, 4, 8]:
            samples = photo(width, height, 1, 2**bits - 1)[:, :, 0]
            colours = random.integers(0, 256, (2**bits, 4)).astype(np.uint8)
            colours[:, 3] = 0
            pixels = colours[samples][:, :, 2::-1]
            for direction, order in [("up", -1), ("down", 1)]:
                rows = padded(packed(samples, bits)[::order])
                high = height if order == -1 else -height
                write(f"{bits}-{direction}-{size}.bmp", bmp(width, high, bits, rows, palette=colours.tobytes()), pixels)
            core = colours[:, :3].tobytes()
            data = bmp(width, height, bits, padded(packed(samples, bits)[::-1]), palette=core, size=12)
            data = data[:10] + struct.pack("<I", 26 + len(core)) + data[14:]
            write(f"{bits}-core-{size}.bmp", data, pixels)
        rgb = photo(width, height, 3)
        for direction, order in [("up", -1), ("down", 1)]:
            high = height if order == -1 else -height
            rows = padded(rgb[::order, :, ::-1].astype(np.uint8).reshape(height, -1))
            write(f"24-{direction}-{size}.bmp", bmp(width, high, 24, rows), rgb)
            for fourth, unused in [("zero", np.zeros((height, width, 1))), ("noise", photo(width, height, 1))]:
                four = np.concatenate([rgb[::order, :, ::-1], unused], 2)
                rows = padded(four.astype(np.uint8).reshape(height, -1))
                write(f"32-{fourth}-{direction}-{size}.bmp", bmp(width, high, 32, rows), rgb)
                # Red first, by masks.
                masks = struct.pack("<III", 0xFF, 0xFF00, 0xFF0000)
                rows = padded(np.concatenate([rgb[::order], unused], 2).astype(np.uint8).reshape(height, -1))
                write(f"32-masks-{fourth}-{direction}-{size}.bmp", bmp(width, high, 32, rows, 3, masks=masks), rgb, "either")
            for title, shifts, bits in [("555", (10, 5, 0), (5, 5, 5)), ("565", (11, 5, 0), (5, 6, 5))]:
                value = sum((rgb[:, :, c] >> (8 - bits[c])) << shifts[c] for c in range(3))
                rows = padded(value[::order].astype("<u2").view(np.uint8).reshape(height, -1))
                masks = b"".join(struct.pack("<I", ((1 << bits[c]) - 1) << shifts[c]) for c in range(3))
                write(f"16-{title}-{direction}-{size}.bmp", bmp(width, high, 16, rows, 3, masks=masks))
        rows = padded((((rgb[:, :, 0] >> 3) << 10) | ((rgb[:, :, 1] >> 3) << 5) | (rgb[:, :, 2] >> 3))[::-1].astype("<u2").view(np.uint8).reshape(height, -1))
        write(f"16-rgb-{size}.bmp", bmp(width, height, 16, rows))
    # Run lengths: runs, literals, an end of line, an end.
    colours = random.integers(0, 256, (256, 4)).astype(np.uint8)
    colours[:, 3] = 0
    samples = photo(37, 29, 1)[:, :, 0]
    samples[:, 5:20] = 9
    rows = b""
    for row in samples[::-1]:
        rows += b"\0\x05" + bytes(row[:5].tolist()) + b"\0" + b"\x0f\x09" + b"\0\x11" + bytes(row[20:].tolist()) + b"\0\0\0"
    rows += b"\0\1"
    write("rle8.bmp", bmp(37, 29, 8, rows, 1, palette=colours.tobytes()), colours[samples][:, :, 2::-1])
    # Lines that end early, and a jump: what is not drawn has no colour that all agree on.
    short = b"".join(b"\x10\x07" + (b"\0\0" if y % 2 else b"\0\2\x05\0" + b"\x10\x03\0\0") for y in range(29)) + b"\0\1"
    write("rle8-short.bmp", bmp(37, 29, 8, short, 1, palette=colours.tobytes()), verdict="either")
    write("rle8-ends.bmp", bmp(37, 29, 8, b"\x25\x07\0\0\0\1", 1, palette=colours.tobytes()), verdict="either")
    # Ten bits a colour, and masks that nobody has.
    wide = padded(photo(37, 29, 1, 2**30 - 1)[:, :, 0].astype("<u4").view(np.uint8).reshape(29, -1))
    note("32-wide.bmp", np.zeros((29, 37, 3)), "refused")
    with open(f"{out}/32-wide.bmp", "wb") as file:
        file.write(bmp(37, 29, 32, wide, 3, masks=struct.pack("<III", 0x3FF00000, 0xFFC00, 0x3FF)))
    for name, masks in [("equal", (0xFF, 0xFF, 0xFF)), ("aslant", (0xFF0, 0xFF000, 0xFF00000)), ("spread", (0xF0000F, 0xFF00, 0xFF000000))]:
        write(f"32-{name}.bmp", bmp(37, 29, 32, wide, 3, masks=struct.pack("<III", *masks)), np.zeros((29, 37, 3)), "refused")
    note("16-444.bmp", np.zeros((29, 37, 3)), "refused")
    with open(f"{out}/16-444.bmp", "wb") as file:
        rows = padded(photo(37, 29, 1, 4095)[:, :, 0].astype("<u2").view(np.uint8).reshape(29, -1))
        file.write(bmp(37, 29, 16, rows, 3, masks=struct.pack("<III", 0xF00, 0xF0, 0xF)))
    samples = samples % 16
    rows = b""
    for row in samples[::-1]:
        for value in row:
            rows += bytes([1, int(value) << 4])
        rows += b"\0\0"
    rows += b"\0\1"
    write("rle4.bmp", bmp(37, 29, 4, rows, 2, palette=colours[:16].tobytes()), colours[samples][:, :, 2::-1])


# ---- TIFF, written here: strips, tiles, planes, byte orders, BigTIFF, prediction
def tiff(samples, photometric, bits=8, order="<", big=False, rows=None, tile=None, planes=False,
         compress=None, predict=False, extra=(), tags=()):
    height, width, channels = samples.shape

    def stored(part):
        part = part.astype(np.int64)
        if predict:
            part = np.concatenate([part[:, :1], np.diff(part, axis=1)], 1) % 2**bits
        lines = part.reshape(len(part), -1)
        data = lines.astype(order + "u2").tobytes() if bits == 16 else packed(lines, bits).tobytes()
        return zlib.compress(data) if compress == 8 else data

    parts = [samples[:, :, c : c + 1] for c in range(channels)] if planes else [samples]
    pieces = []
    for part in parts:
        if tile:
            for y in range(0, height, tile):
                for x in range(0, width, tile):
                    piece = part[y : y + tile, x : x + tile]
                    gap = ((0, tile - piece.shape[0]), (0, tile - piece.shape[1]), (0, 0))
                    pieces.append(stored(np.pad(piece, gap)))
        else:
            step = rows or height
            pieces += [stored(part[y : y + step]) for y in range(0, height, step)]
    head = 16 if big else 8
    offsets, at = [], head
    for piece in pieces:
        offsets.append(at)
        at += len(piece) + len(piece) % 2
    entries = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * channels), (259, 3, [compress or 1]),
               (262, 3, [photometric]), (277, 3, [channels]), (284, 3, [2 if planes else 1])]
    entries += [(317, 3, [2])] if predict else []
    if tile:
        entries += [(322, 4, [tile]), (323, 4, [tile]), (324, 4, offsets), (325, 4, [len(p) for p in pieces])]
    else:
        entries += [(273, 4, offsets), (278, 4, [rows or height]), (279, 4, [len(p) for p in pieces])]
    entries += [(338, 3, list(extra))] if extra else []
    entries = sorted(entries + list(tags))
    count, field, inline = ("Q", "Q", 8) if big else ("H", "I", 4)
    directory = struct.pack(order + count, len(entries))
    behind, place = b"", at + struct.calcsize(order + count) + len(entries) * (20 if big else 12) + inline
    for tag, kind, values in entries:
        data = struct.pack(order + {3: "H", 4: "I"}[kind] * len(values), *values)
        if len(data) > inline:
            data, behind, place = struct.pack(order + field, place), behind + data, place + len(data)
        directory += struct.pack(order + "HH" + field, tag, kind, len(values)) + data.ljust(inline, b"\0")
    directory += struct.pack(order + field, 0)
    body = b"".join(piece + b"\0" * (len(piece) % 2) for piece in pieces)
    mark = b"II" if order == "<" else b"MM"
    if big:
        start = mark + struct.pack(order + "HHHQ", 43, 8, 0, at)
    else:
        start = mark + struct.pack(order + "HI", 42, at)
    return start + body + directory + behind


def tiff_cases():
    image = COLOURS
    rgba = Image.fromarray(photo(37, 29, 4).astype(np.uint8), "RGBA")
    modes = {"1": image.convert("1"), "L": image.convert("L"), "LA": rgba.convert("LA"), "RGB": image,
             "RGBA": rgba, "CMYK": image.convert("CMYK"),
             "I;16": Image.fromarray(photo(37, 29, 1, 65535)[:, :, 0].astype(np.uint16))}
    for mode, source in modes.items():
        for compression in [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"]:
            save(f"{mode}-{compression}.tif".replace(";", ""), source, compression=compression)
    for compression in ["tiff_ccitt", "group3", "group4"]:
        save(f"{compression}.tif", modes["1"], "refused", compression=compression)
    save("palette.tif", image.quantize(99), "either")
    for name, source in [("grey", modes["L"]), ("rgb", image)]:
        for quality in [60, 95]:
            save(f"jpeg-{name}-{quality}.tif", source, compression="jpeg", quality=quality)
    tall = Image.fromarray(photo(300, 700, 3).astype(np.uint8))
    save("jpeg-strips.tif", tall, compression="jpeg", strip_size=65536)
    save("jpeg-ycbcr.tif", tall.convert("YCbCr"), "either", compression="jpeg")
    save("float.tif", Image.fromarray(photo(37, 29, 1)[:, :, 0].astype(np.float32)), "either")
    save("pages.tif", image, save_all=True, append_images=[modes["L"]])
    kinds = {"grey": (1, 1), "white": (0, 1), "rgb": (2, 3), "rgba": (2, 4), "cmyk": (5, 4)}
    forms = {"strip": {}, "strips": {"rows": 5}, "tiles": {"tile": 16}, "planes": {"planes": True, "rows": 7},
             "planes-tiles": {"planes": True, "tile": 16}, "deflate": {"compress": 8, "rows": 5},
             "predicted": {"compress": 8, "predict": True}, "predicted-tiles": {"compress": 8, "predict": True, "tile": 16}}
    for name, (photometric, channels) in kinds.items():
        for bits in [8, 16]:
            for form, options in forms.items():
                for order in "<>":
                    for big in [False, True]:
                        for width, height in [(37, 29), (8, 3)]:
                            samples = photo(width, height, channels, 2**bits - 1)
                            extra = (2,) if name == "rgba" else ()
                            data = tiff(samples, photometric, bits, order, big, extra=extra, **options)
                            full = eight(samples) if bits == 16 else samples
                            if name == "cmyk":
                                inks = Image.fromarray(full.astype(np.uint8), "CMYK")
                                pixels = np.asarray(inks.convert("RGB"))
                            elif name == "rgba":
                                pixels = shown(full[:, :, :3], full[:, :, 3])
                            else:
                                pixels = shown(full if channels == 3 else full[:, :, 0])
                                pixels = 255 - pixels if name == "white" else pixels
                            end = "le" if order == "<" else "be"
                            title = f"{name}-{bits}-{form}-{end}-{'big' if big else 'usual'}-{width}x{height}.tif"
                            hard = form == "planes-tiles" and channels > 1 or (name, bits) == ("cmyk", 16)
                            write(title, data, pixels, "either" if hard else "read")
    for bits in [1, 2, 4]:
        samples = photo(37, 29, 1, 2**bits - 1)
        pixels = samples[:, :, 0] * 255 // (2**bits - 1)
        write(f"grey-{bits}.tif", tiff(samples, 1, bits), shown(pixels))
        write(f"white-{bits}.tif", tiff(samples, 0, bits), shown(255 - pixels))
        write(f"reversed-{bits}.tif", tiff(samples, 1, bits, tags=[(266, 3, [2])]), verdict="either")
    clear = photo(37, 29, 4)
    clear[:, :, :3] = clear[:, :, :3] * clear[:, :, 3:] // 255
    write("premultiplied.tif", tiff(clear, 2, extra=(1,)))
    write("fourth-unused.tif", tiff(photo(37, 29, 4), 2, extra=(0,)))
    write("grey-alpha.tif", tiff(photo(37, 29, 2), 1, extra=(2,)))
    write("five.tif", tiff(photo(37, 29, 4)[:, :, [0, 1, 2, 3, 0]], 2, extra=(2, 0)), photo(37, 29, 3), "either")
    # What the writer above makes, Pillow reads alike.
    for name in ["rgb-8-tiles-le-usual-37x29", "rgb-8-predicted-tiles-be-usual-37x29", "cmyk-8-strips-le-usual-37x29",
                 "white-8-strip-be-usual-37x29", "rgb-8-planes-le-usual-37x29", "rgb-8-strips-le-big-37x29"]:
        raw = np.fromfile(f"{out}/{name}.tif.rgb", np.uint8)
        assert (raw == pillow(f"{out}/{name}.tif").astype(np.uint8).ravel()).all(), name


# ---- PNM
def pnm_cases():
    for width, height in SIZES:
        size = f"{width}x{height}"
        bits = photo(width, height, 1, 1)[:, :, 0]
        text = "\n".join(" ".join(map(str, row)) for row in bits)
        write(f"p1-{size}.pbm", f"P1\n# a comment\n{width} {height}\n{text}\n".encode())
        close = "\n".join("".join(map(str, row)) for row in bits)
        write(f"p1-close-{size}.pbm", f"P1\n{width} {height}\n{close}\n".encode())
        write(f"p4-{size}.pbm", f"P4\n{width} {height}\n".encode() + packed(bits, 1).tobytes())
        for most in [1, 2, 6, 15, 100, 254, 255, 256, 1023, 4095, 32767, 65535]:
            for name, channels in [("grey", 1), ("rgb", 3)]:
                samples = photo(width, height, channels, most)
                samples.ravel()[0] = most
                plain, raw = ("P2", "P5") if channels == 1 else ("P3", "P6")
                end = "pgm" if channels == 1 else "ppm"
                text = "\n".join(" ".join(map(str, row)) for row in samples.reshape(height, -1))
                write(f"plain-{name}-{most}-{size}.{end}", f"{plain}\n{width} {height}\n{most}\n{text}\n".encode())
                data = samples.astype(np.uint8 if most < 256 else ">u2").tobytes()
                write(f"raw-{name}-{most}-{size}.{end}", f"{raw}\n# a comment\n{width} {height}\n{most}\n".encode() + data)
    write("odd-most.pgm", b"P5 2 2 40000\n" + struct.pack(">4H", 0, 1, 39999, 40000), verdict="either")


# ---- What a decoder may leave out, or take from the wrong place, without a word.
def chunks_of(webp):
    at, found = 12, []
    while at < len(webp):
        length = struct.unpack("<I", webp[at + 4 : at + 8])[0]
        found.append((webp[at : at + 4], webp[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def riff(chunks):
    parts = [kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks]
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_of(image):
    image.save(f"{out}/part", "WEBP", lossless=True, exact=True)
    with open(f"{out}/part", "rb") as file:
        return dict(chunks_of(file.read()))[b"VP8L"]


def header(flags, width, height):
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"VP8X", bytes([flags, 0, 0, 0]) + sides
