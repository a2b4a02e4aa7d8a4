"""What all contenders of a training work start from, as `deepsim-bench inputs` wrote it."""

import json
import pathlib

from safetensors import safe_open

MEAN_BGR = (104.0, 117.0, 123.0)
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)
SLOPE = 0.3
LOSSES = ("feat", "adv", "img", "d_real", "d_fake")


class Inputs:
    """Settings as attributes, tensors as dicts by name: `net`, `g`, `d`, and the images `x`."""

    def __init__(self, folder, device="cpu"):
        folder = pathlib.Path(folder)
        self.__dict__.update(json.loads((folder / "settings.json").read_text()))
        self.weights = {"net": {}, "g": {}, "d": {}}
        with safe_open(folder / "tensors.safetensors", "pt") as file:
            for key in file.keys():
                if key == "x":
                    self.x = file.get_tensor(key).clone().to(device)
                else:
                    group, name = key.split("/", 1)
                    self.weights[group][name] = file.get_tensor(key).clone().to(device)

    def rows_to(self, tap):
        """The frozen network's rows up to and including `tap`."""
        taps = [row["tap"] for row in self.rows]
        return self.rows[: taps.index(tap) + 1]
