#!/usr/bin/env python3
"""Features of a safetensors file as bdpy's folder of .mat files, by the programs that people write them with.

    matfiles.py IN.safetensors FOLDER

By turns: scipy's version 5, plain and compressed; version 7.3 as hdf5storage writes it (dimensions reversed, MATLAB's
class and numpy's shape beside them), whole and in compressed chunks; and plain HDF5 with numpy's dimensions.
"""

import sys
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from safetensors.numpy import load_file


def hdf5storage(path, feat, **how):
    with h5py.File(path, "w", userblock_size=512) as file:
        data = file.create_dataset("feat", data=feat.T, **how)
        data.attrs["MATLAB_class"] = np.bytes_({"f": "single", "d": "double"}[feat.dtype.char])
        data.attrs["Python.Shape"] = np.array(feat.shape, np.uint64)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


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
                hdf5storage(path, feat)
            case 3:
                hdf5storage(path, feat.astype(np.float64), chunks=True, compression="gzip", shuffle=True)
            case 4:
                with h5py.File(path, "w") as file:
                    file["feat"] = feat


main(*sys.argv[1:])
