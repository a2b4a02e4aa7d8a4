"""The protocol of a worker: JSON lines on standard output, commands on standard input.

{"ready": true, ...} once everything is loaded and warm; then for every `go` one timed unit of
work, answered by {"seconds": S}; `stop` is answered by {"peak_mib": M}. On a GPU a unit is over when
the GPU has done all that it was asked, and M is the GPU's memory that tensors held at once.
"""

import json
import os
import queue
import sys
import threading
import time

# What libraries print must not get between the lines of the protocol.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

ORPHANED = 3


def say(line):
    _answers.write(json.dumps(line) + "\n")
    _answers.flush()


def _read(commands):
    for line in sys.stdin:
        commands.put(line.strip())
        if line.strip() == "stop":
            return
    # The master is gone: there is no one to work for, not even to the end of the unit at hand.
    os._exit(ORPHANED)


def forget_peak():
    """Lets the record of the largest resident size begin here: loading and trials are no work."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # a kernel that cannot keeps the record from the start


def peak_mib():
    """Largest resident size of this process since forget_peak."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


class Processor:
    """The CPU, or a GPU as PyTorch's `torch.cuda` knows it."""

    def __init__(self, device="cpu"):
        self.cuda = None
        if device.startswith("cuda"):
            import torch

            self.cuda, self.device = torch.cuda, torch.device(device)

    def facts(self):
        return {"device": self.cuda.get_device_name(self.device)} if self.cuda else {}

    def wait(self):
        if self.cuda:
            self.cuda.synchronize(self.device)

    def forget_peak(self):
        if self.cuda:
            self.cuda.reset_peak_memory_stats(self.device)
        else:
            forget_peak()

    def peak_mib(self):
        if self.cuda:
            return self.cuda.max_memory_allocated(self.device) / 2**20
        return peak_mib()


def serve(facts, unit, device="cpu"):
    """Answers commands until `stop`; `unit` is what is timed."""
    processor = Processor(device)
    commands = queue.Queue()
    threading.Thread(target=_read, args=(commands,), daemon=True).start()
    processor.wait()
    processor.forget_peak()
    say({"ready": True, **processor.facts(), **facts})
    while True:
        command = commands.get()
        if command == "go":
            begun = time.perf_counter()
            unit()
            processor.wait()
            say({"seconds": time.perf_counter() - begun})
        elif command == "stop":
            say({"peak_mib": processor.peak_mib()})
            return
        else:
            raise SystemExit(f"unknown command `{command}`")
