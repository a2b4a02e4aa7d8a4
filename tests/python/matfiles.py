#!/usr/bin/env python3
"""Features of a safetensors file as bdpy's folder of .mat files, by the programs that people write them with.

    matfiles.py IN.safetensors FOLDER
    matfiles.py FOLDER

By turns: scipy's version 5, plain and compressed; version 7.3 by h5py, with the two of hdf5storage's attributes that
matter (MATLAB's class, numpy's shape) and its reversed dimensions, whole and in compressed chunks; and plain HDF5 with
numpy's dimensions. Text and an empty array, as MATLAB writes them, stand beside those of version 7.3.

With one argument: FOLDER/text, FOLDER/empty and FOLDER/truth have one file each, whose `feat` is text, an empty array,
and truth values of h5py.
"""

import sys
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from safetensors.numpy import load_file


def text(file, name):
    data = file.create_dataset(name, data=np.frombuffer("S1".encode("utf-16-le"), np.uint16)[:, None])
    data.attrs["MATLAB_class"] = np.bytes_("char")
    data.attrs["MATLAB_int_decode"] = np.int32(2)


def empty(file, name):
    """The values are its sizes."""
    data = file.create_dataset(name, data=np.array([0, 3], np.uint64))
    data.attrs["MATLAB_class"] = np.bytes_("double")
    data.attrs["MATLAB_empty"] = np.uint8(1)


def version_73(path, write):
    with h5py.File(path, "w", userblock_size=512) as file:
        write(file)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def features(path, feat, **how):
    def write(file):
        text(file, "subject")
        empty(file, "excluded")
        data = file.create_dataset("feat", data=feat.T, **how)
        data.attrs["MATLAB_class"] = np.bytes_({"f": "single", "d": "double"}[feat.dtype.char])
        data.attrs["Python.Shape"] = np.array(feat.shape, np.uint64)

    version_73(path, write)


def special(folder):
    for name in ["text", "empty", "truth"]:
        (folder / name).mkdir(parents=True)
    version_73(folder / "text/00.mat", lambda file: text(file, "feat"))
    version_73(folder / "empty/00.mat", lambda file: empty(file, "feat"))
    with h5py.File(folder / "truth/00.mat", "w") as file:
        file["feat"] = np.array([[True, False, True]])


def main(source, folder):
    folder = Path(folder)
    folder.mkdir()
    for i, (name, values) in enumerate(sorted(load_file(source).items())):
        path = folder / (Path(name).stem + ".mat")
        feat = values[None]
        match i % 5:
            case 0:
                scipy.io.savemat(path, {"feat": feat})
            case 1:
                scipy.io.savemat(path, {"subject": "S1", "feat": feat.astype(np.float64)}, do_compression=True)
            case 2:
                features(path, feat)
            case 3:
                features(path, feat.astype(np.float64), chunks=True, compression="gzip", shuffle=True)
            case 4:
                with h5py.File(path, "w") as file:
                    file["feat"] = feat


if len(sys.argv) == 2:
    special(Path(sys.argv[1]))
else:
    main(*sys.argv[1:])
