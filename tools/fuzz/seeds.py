"""Writes the seeds of the fuzzer: small valid files of every format, by the programs that write them in earnest.

    python3 tools/fuzz/seeds.py PATH/TO/deepsim-data

Needs what the tests need (PyTorch, Pillow, safetensors, scipy, h5py: third_party/py). The seeds are committed; this is how
they came about. A checkpoint's manifest and the tables of attributes are not made here but kept by hand.
"""

import io
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import h5py
import numpy as np
import safetensors.torch
import scipy.io
import torch
from PIL import Image

here = Path(__file__).parent
sys.path.insert(0, str(here.parent.parent / "tests/python"))
from caffe import blob, bytes_, number  # noqa: E402

seeds = here / "seeds"
rng = np.random.default_rng(3)
torch.manual_seed(3)


def keep(target, name, data):
    path = seeds / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def caffemodels():
    weight, bias = rng.standard_normal((2, 3, 2, 2), np.float32), rng.standard_normal(2, np.float32)
    for legacy, name in [(True, "v1"), (False, "new")]:
        blobs = [blob(weight, legacy), blob(bias, legacy)]
        if legacy:  # V1LayerParameter: name 4, type 5, blobs 6; in NetParameter: 2
            layer = bytes_(4, "conv1") + number(5, 4) + b"".join(bytes_(6, b) for b in blobs)
            keep("caffemodel", f"{name}.caffemodel", bytes_(1, "net") + bytes_(2, layer))
        else:  # LayerParameter: name 1, type 2, blobs 7; in NetParameter: 100
            layer = bytes_(1, "conv1") + bytes_(2, "Convolution") + b"".join(bytes_(7, b) for b in blobs)
            keep("caffemodel", f"{name}.caffemodel", bytes_(1, "net") + bytes_(100, layer))


def saved(value, **how):
    out = io.BytesIO()
    torch.save(value, out, **how)
    return out.getvalue()


def state_dicts():
    base = torch.randn(12)
    dicts = {
        "plain": OrderedDict(weight=torch.randn(2, 3), bias=torch.randn(2)),
        "views": {"t": base[:6].view(2, 3).t(), "strided": base[1::5], "scalar": base[3], "half": torch.randn(3).half()},
        "parameter": {"p": torch.nn.Parameter(torch.randn(2)), "n.num_batches_tracked": torch.tensor(3)},
    }
    for name, dict_ in dicts.items():
        for form, zipped in [("zip", True), ("old", False)]:
            keep("pth", f"{name}-{form}.pth", saved(dict_, _use_new_zipfile_serialization=zipped))
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model-1.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("model/small.pth", saved(dicts["plain"], _use_new_zipfile_serialization=False))
    keep("wheel", "small.whl", wheel.getvalue())
    keep("wheel", "bare.pth", saved(dicts["plain"]))


def flax():
    layer = {"kernel": rng.standard_normal((1, 1, 2, 2), np.float32), "bias": rng.standard_normal(2, np.float32)}
    for key in ["AlexNet_0", "VGG16_0"]:
        tree = {"params": {key: {"Conv_0": layer}, "NetLinLayer_0": {"Conv_0": {"kernel": layer["kernel"]}}}}
        for protocol in [3, 4, 5]:
            keep("flax", f"{key}-{protocol}.ckpt", pickle.dumps(tree, protocol=protocol))
            keep("flax", f"{key}-{protocol}-bare.ckpt", pickle.dumps(tree["params"], protocol=protocol))


def arrays():
    cases = {
        "f32": rng.standard_normal((3, 4), np.float32),
        "f64": rng.standard_normal((2, 2, 2)),
        "f16": rng.standard_normal(5).astype(np.float16),
        "i64": np.arange(6).reshape(2, 3),
        "u8": np.arange(4, dtype=np.uint8),
        "fortran": np.asfortranarray(rng.standard_normal((1, 4), np.float32)),
    }
    for name, array in cases.items():
        for version in [(1, 0), (2, 0), (3, 0)]:
            out = io.BytesIO()
            np.lib.format.write_array(out, array, version)
            if name == "f32" or version == (1, 0):
                keep("npy", f"{name}-{version[0]}.npy", out.getvalue())
    tensors = {"conv.weight": torch.randn(2, 3, 1, 1), "conv.bias": torch.randn(2)}
    keep("safetensors", "f32.safetensors", safetensors.torch.save(tensors, {"made": "by hand"}))
    keep("safetensors", "narrow.safetensors", safetensors.torch.save({"h": torch.randn(3).half(), "b": torch.randn(2).bfloat16()}))
    keep("safetensors", "empty.safetensors", safetensors.torch.save({"none": torch.zeros(0, 3), "scalar": torch.tensor(1.0)}))


def matlab():
    """Version 5 by scipy; 7.3 by h5py with the attributes of hdf5storage; and plain HDF5."""
    feat = rng.standard_normal((1, 2, 3), np.float32)
    for name, how in [("plain", {}), ("zipped", {"do_compression": True})]:
        out = io.BytesIO()
        scipy.io.savemat(out, {"label": "a", "feat": feat}, **how)
        keep("mat", f"v5-{name}.mat", out.getvalue())
    for name, how in [("plain", {}), ("chunked", {"chunks": (3, 2, 1), "compression": "gzip", "shuffle": True})]:
        out = io.BytesIO()
        with h5py.File(out, "w", userblock_size=512) as file:
            data = file.create_dataset("feat", data=feat.T, **how)
            data.attrs["MATLAB_class"] = np.bytes_("single")
            data.attrs["Python.Shape"] = np.array(feat.shape, np.uint64)
        text = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
        keep("mat", f"v73-{name}.mat", text.ljust(512, b"\0") + out.getvalue()[512:])
    out = io.BytesIO()
    with h5py.File(out, "w", libver="latest") as file:
        file["feat"] = feat
    keep("mat", "hdf5.mat", out.getvalue())


def photo(side=12):
    y, x = np.mgrid[0:side, 0:side] / side
    pixels = np.stack([255 * x, 255 * y, 127 + 127 * np.sin(9 * x * y)], 2) + rng.normal(0, 9, (side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def images():
    rgb = photo()
    alpha = rgb.convert("RGBA")
    alpha.putalpha(rgb.convert("L"))
    wide = Image.fromarray((np.asarray(rgb.convert("L")).astype(np.uint16) * 257))
    cases = {
        "baseline.jpg": (rgb, "JPEG", {"quality": 80}),
        "progressive.jpg": (rgb, "JPEG", {"progressive": True}),
        "plain444.jpg": (rgb, "JPEG", {"subsampling": 0, "optimize": True}),
        "restart.jpg": (rgb, "JPEG", {"restart_marker_blocks": 1}),
        "grey.jpg": (rgb.convert("L"), "JPEG", {}),
        "cmyk.jpg": (rgb.convert("CMYK"), "JPEG", {}),
        "rgb.png": (rgb, "PNG", {}),
        "alpha.png": (alpha, "PNG", {}),
        "palette.png": (rgb.quantize(8), "PNG", {"bits": 4}),
        "wide.png": (wide, "PNG", {}),
        "bit.png": (rgb.convert("1"), "PNG", {}),
        "lossy.webp": (rgb, "WEBP", {"quality": 50}),
        "lossless.webp": (alpha, "WEBP", {"lossless": True}),
        "animated.webp": (rgb, "WEBP", {"save_all": True, "append_images": [photo()]}),
        "still.gif": (rgb.quantize(16), "GIF", {}),
        "animated.gif": (rgb.quantize(16), "GIF", {"save_all": True, "append_images": [photo().quantize(16)]}),
        "rgb.bmp": (rgb, "BMP", {}),
        "palette.bmp": (rgb.quantize(4), "BMP", {}),
        "raw.tiff": (rgb, "TIFF", {}),
        "lzw.tiff": (rgb, "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tiff": (rgb, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "packbits.tiff": (rgb.convert("L"), "TIFF", {"compression": "packbits"}),
        "jpeg.tiff": (rgb, "TIFF", {"compression": "jpeg"}),
        "rgb.ppm": (rgb, "PPM", {}),
        "grey.pgm": (rgb.convert("L"), "PPM", {}),
        "bit.pbm": (rgb.convert("1"), "PPM", {}),
    }
    for name, (image, form, how) in cases.items():
        out = io.BytesIO()
        image.save(out, form, **how)
        keep("images", name, out.getvalue())


def counted(data):
    return len(data).to_bytes(4, "little") + data


def datasets(program):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "photos").mkdir()
        for name in "ab":
            photo(16).save(folder / "photos" / f"{name}.png")
        for store in ["raw", "jpeg"]:
            out = folder / store
            how = [out, "--size", "16", "--store", store]
            subprocess.run([program, "prepare", folder / "photos", *how], check=True)
            manifest = (out / "manifest.json").read_bytes()
            shard = (out / "shard-00000.bin").read_bytes()
            keep("dataset", store, counted(manifest) + shard)
        # A part has records of every kind: kept, repeated and corrupt.
        whole = (folder / "photos/a.png").read_bytes()
        (folder / "photos/c.png").write_bytes(whole)
        (folder / "photos/d.png").write_bytes(whole[: len(whole) // 2])
        for name, options in [("raw", ""), ("jpeg-split", "--store jpeg --holdout 0.5 --seed 4")]:
            out = folder / f"part-{name}"
            how = [out, "--size", "16", "--quarantine", "1", "--part", "1/1", *options.split()]
            subprocess.run([program, "prepare", folder / "photos", *how], check=True)
            files = [(out / file).read_bytes() for file in ("part.json", "records.jsonl", "shard-00000.bin")]
            keep("part", name, counted(files[0]) + counted(files[1]) + files[2])


if __name__ == "__main__":
    caffemodels()
    state_dicts()
    flax()
    arrays()
    matlab()
    images()
    datasets(Path(sys.argv[1]).resolve())
    print(sum(1 for path in seeds.rglob("*") if path.is_file()), "seeds in", seeds)
