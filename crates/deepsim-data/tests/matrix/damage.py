# What follows others.py: forms that decoders read otherwise without a word, damage that must be noticed, and all cases.
import io


def silent_cases():
    width, height = 37, 29
    rgb, four = photo(width, height, 3), photo(width, height, 4)
    # A sample beyond the colours: in plain strips it is dropped, elsewhere the crate stumbles over it.
    for name, options in [("predicted", dict(compress=8, predict=True)), ("tiles", dict(tile=16)),
                          ("predicted-tiles", dict(compress=8, predict=True, tile=16))]:
        for bits in [8, 16]:
            samples = photo(width, height, 4, 2**bits - 1)
            full = eight(samples) if bits == 16 else samples
            write(f"unused-{name}-{bits}.tif", tiff(samples, 2, bits, extra=(0,), **options), shown(full[:, :, :3]), "either")
        five = np.concatenate([four, four[:, :, :1]], 2)
        inks = np.asarray(Image.fromarray(four.astype(np.uint8), "CMYK").convert("RGB"))
        write(f"ink-unused-{name}.tif", tiff(five, 5, extra=(0,), **options), inks, "either")
    write("unknown-sample.tif", tiff(four, 2, extra=(999,)), verdict="refused")
    write("predictor-alone.tif", tiff(rgb, 2, tags=[(317, 3, [2])]), shown(rgb), "either")
    # Transparency of a PNG where it does not count, and damage that leaves the stream readable.
    clear = chunk(b"tRNS", rgb[3, 3].astype(">u2").tobytes())
    plain = png(rgb, 2, 8, False)
    write("trns-behind.png", plain[:-12] + clear + plain[-12:], verdict="refused")
    write("trns-twice.png", png(rgb, 2, 8, False, clear + clear), verdict="refused")
    write("trns-damaged.png", png(rgb, 2, 8, False, clear[:-1] + bytes([clear[-1] ^ 1])), verdict="refused")
    few = photo(width, height, 1, 3)
    colours = chunk(b"PLTE", bytes(range(12)))
    write("trns-long.png", png(few, 3, 2, False, colours + chunk(b"tRNS", bytes(5))), verdict="refused")
    write("trns-early.png", png(few, 3, 2, False, chunk(b"tRNS", bytes(2)) + colours), verdict="refused")
    at = plain.index(b"IDAT")
    length = struct.unpack(">I", plain[at - 4 : at])[0]
    data = plain[at + 4 : at + 4 + length]
    damaged = chunk(b"IDAT", data[:-1] + bytes([data[-1] ^ 1]))
    write("sum-damaged.png", plain[: at - 4] + damaged + plain[at + 8 + length :], verdict="refused")
    rows = padded(rgb[::-1, :, ::-1].astype(np.uint8).reshape(height, -1))
    for start in [0, 14, 40]:
        data = bmp(width, height, 24, rows)
        write(f"start-{start}.bmp", data[:10] + struct.pack("<I", start) + data[14:], verdict="refused")
    # A lossless WebP says itself that it has alpha; the first frame of an animation lies over nothing.
    inner = webp_of(Image.fromarray(four.astype(np.uint8), "RGBA"))
    pixels = shown(four[:, :, :3], four[:, :, 3])
    for flags in [0, 0x10]:
        write(f"alpha-flag-{flags}.webp", riff([header(flags, width, height), (b"VP8L", inner)]), pixels)
    solid = webp_of(Image.fromarray(rgb.astype(np.uint8)))
    for name, part, wanted, flags in [("solid", solid, shown(rgb), 2), ("clear", inner, pixels, 0x12), ("unsaid", inner, pixels, 2)]:
        for blend in [0, 2]:
            sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
            frame = bytes(6) + sides + bytes([50, 0, 0, blend]) + b"VP8L" + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2)
            data = riff([header(flags, width, height), (b"ANIM", bytes(6)), (b"ANMF", frame), (b"ANMF", frame)])
            write(f"first-frame-{name}-{blend}.webp", data, wanted, "refused" if name == "unsaid" else "read")
    # Values above the largest that the header names.
    ramp = np.arange(width * height) % 16
    grey = ramp.reshape(height, width).astype(np.uint8)
    for bad in [False, True]:
        verdict = "refused" if bad else "read"
        samples = grey.copy()
        samples[5, 7] = 16 if bad else 15
        scaled = shown(np.round(samples.astype(float) / 15 * 255).astype(np.int64))
        text = "\n".join(" ".join(map(str, row)) for row in samples.tolist())
        write(f"most-{bad}-plain.pgm", f"P2\n{width} {height}\n15\n{text}\n".encode(), scaled, verdict)
        write(f"most-{bad}-raw.pgm", f"P5 {width} {height} 15\n".encode() + samples.tobytes(), scaled, verdict)
        coloured = np.stack([samples] * 3, 2)
        write(f"most-{bad}-raw.ppm", f"P6 {width} {height} 15\n".encode() + coloured.tobytes(), scaled, verdict)
        wide = (samples.astype(np.int64) * 1000).astype(">u2")
        if not bad:
            pixels = shown(eight(np.round(wide.astype(float) / 15000 * 65535).astype(np.int64)))
        write(f"most-{bad}-wide.pgm", f"P5 {width} {height} 15000\n".encode() + wide.tobytes(), pixels, verdict)
    # Alpha belongs before its image.
    opaque = io.BytesIO()
    Image.fromarray(rgb.astype(np.uint8)).save(opaque, "WEBP", quality=80)
    lossy = opaque.getvalue()[20:]
    alpha = (b"ALPH", b"\0" + four[:, :, 3].astype(np.uint8).tobytes())
    parts = [alpha, (b"VP8 ", lossy)]
    write("alpha-before.webp", riff([header(0x10, width, height)] + parts))
    write("alpha-behind.webp", riff([header(0x10, width, height)] + parts[::-1]), verdict="refused")
    # JPEG inside TIFF: the tag says what the colours are, whatever the stream says; alpha is refused.
    def strip(data, photometric, components):
        tags = [(256, 3, [16]), (257, 3, [16]), (258, 3, [8] * components), (259, 3, [7]), (262, 3, [photometric]),
                (273, 4, [8]), (277, 3, [components]), (278, 3, [16]), (279, 4, [len(data)])]
        body, extra = b"", b""
        behind = 8 + len(data) + len(data) % 2 + 2 + 12 * len(tags) + 4
        for tag, kind, values in tags:
            packed = b"".join(struct.pack("<H" if kind == 3 else "<I", value) for value in values)
            if len(packed) > 4:
                body += struct.pack("<HHII", tag, kind, len(values), behind + len(extra))
                extra += packed
            else:
                body += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
        data = data + b"\0" * (len(data) % 2)
        return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + body + bytes(4) + extra

    small = Image.fromarray(rgb[:16, :16].astype(np.uint8))
    for sampling in [0, 2]:
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=95, subsampling=sampling)
        raw = stream.getvalue()
        at = raw.index(b"\xff\xe0")
        bare = raw[:at] + raw[at + 2 + struct.unpack(">H", raw[at + 2 : at + 4])[0] :]
        adobe = [b"\xff\xee\0\x0eAdobe\0d\0\0\0\0" + bytes([transform]) for transform in [0, 1]]
        for name, whole in [("jfif", raw), ("bare", bare)] + [(f"adobe{i}", bare[:2] + mark + bare[2:]) for i, mark in enumerate(adobe)]:
            for photometric in [2, 6]:
                write(f"strip-{sampling}-{name}-{photometric}.tif", strip(whole, photometric, 3), None, "either")
    Image.fromarray(four[:16, :16].astype(np.uint8), "RGBA").save(f"{out}/alpha-jpeg.tif", compression="jpeg")
    note("alpha-jpeg.tif", np.zeros((1, 1, 3)), "refused")
    # A damaged name makes transparency a chunk that nobody needs; its length must fit.
    for bit in [0, 1, 2, 3, 4]:
        for place in range(4):
            named = bytearray(plain[:33] + clear + plain[33:])
            named[33 + 4 + place] ^= 1 << bit
            write(f"trns-name-{place}-{bit}.png", bytes(named), verdict="refused")
    for length in [0, 2, 5, 8]:
        write(f"trns-length-{length}.png", plain[:33] + chunk(b"tRNS", bytes(length)) + plain[33:], verdict="refused")
    # Fewer colours than the bits can name, and pixels beyond them.
    bits = padded((grey & 15).astype(np.uint8))
    for used in [12, 16]:
        palette = bytes((i * 37 + j * 11) % 256 if j < 3 else 0 for i in range(used) for j in range(4))
        info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, len(bits), 0, 0, used, 0)
        data = b"BM" + struct.pack("<IHHI", 54 + len(palette) + len(bits), 0, 0, 54 + len(palette)) + info + palette + bits
        write(f"palette-{used}.bmp", data, None, "read" if used == 16 else "refused")
    # Damage within a WebP is told as libwebp tells it.
    lossy_file, lossless_file = riff([(b"VP8 ", lossy)]), riff([(b"VP8L", solid)])
    for kind, whole in [("lossy", lossy_file), ("lossless", lossless_file)]:
        for at in range(20, len(whole), max(1, len(whole) // 80)):
            write(f"damaged-{kind}-{at}.webp", whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :], None, "either")
    for cut in [2, 6, 40]:
        write(f"cut-{cut}.webp", riff([(b"VP8 ", lossy[:-cut])]), None, "either")
    for name, change in [("small", -2), ("twenty", 20 - len(lossy_file) + 8)]:
        size = struct.pack("<I", len(lossy_file) - 8 + change)
        write(f"riff-{name}.webp", lossy_file[:4] + size + lossy_file[8:], verdict="refused")
    first = header(0, width, height)
    for name, parts in [("two", [first, (b"VP8 ", lossy), (b"VP8 ", lossy)]), ("two-alpha", [header(0x10, width, height), alpha, alpha, (b"VP8 ", lossy)]),
                        ("between", [header(0x10, width, height), alpha, (b"EXIF", bytes(8)), (b"VP8 ", lossy)]),
                        ("still-animated", [header(2, width, height), (b"ANIM", bytes(6)), (b"VP8 ", lossy)]),
                        ("alpha-lossless", [header(0x10, width, height), alpha, (b"VP8L", solid)])]:
        write(f"order-{name}.webp", riff(parts), verdict="refused")


for cases in [png_cases, webp_cases, gif_cases, bmp_cases, tiff_cases, pnm_cases, silent_cases]:
    cases()
