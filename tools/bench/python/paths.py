"""Says with which code PyTorch computes on this machine, as one JSON object.

Usage: paths.py. oneDNN names its instruction set only while it works and is asked to talk; so a convolution is done by a
process of its own.
"""

import json
import os
import re
import subprocess
import sys

CONVOLUTION = """
import torch
x, w = torch.randn(4, 16, 32, 32), torch.randn(16, 16, 3, 3)
torch.nn.functional.conv2d(x, w)
"""


def onednn():
    """oneDNN's instruction set in its own words; None where it says nothing."""
    talking = {**os.environ, "ONEDNN_VERBOSE": "1"}
    command = [sys.executable, "-c", CONVOLUTION]
    said = subprocess.run(command, env=talking, capture_output=True, text=True, check=False)
    found = re.search(r"info,cpu,isa:(.*)", said.stdout)
    return found.group(1).strip() if found else None


def main():
    import torch

    found = {"version": torch.__version__, "onednn": onednn()}
    found["aten"] = torch.backends.cpu.get_cpu_capability()
    found["threads"] = torch.get_num_threads()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
