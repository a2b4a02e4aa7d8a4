"""Finds how train_tuned.py is fastest on this machine: its arithmetic, its threads, and whether torch.compile helps.

Usage: tune.py FOLDER DEVICE auto|fp32|tf32|bf16 THREADS,... [one-pass]

A trial times iterations on few images, the settings in turn. `auto` tries fp32 and bf16. On the CPU each number of
threads is tried, and PyTorch's own; then torch.compile, with the fastest of the other settings. What fails is no
setting, and the trial says so. Standard output is one JSON object: the choice, and all trials.
"""

import json
import os
import re
import signal
import sys
import time

# What libraries print must not get into the JSON.
_answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch

import inputs
from train_tuned import Training

IMAGES = 16  # of a trial
TRIES = 3  # timed iterations of a setting; the fastest counts
HOPELESS = 1.5  # times the fastest after one try: it is not tried again
COMPILE_SECONDS = 240  # after which compiling has failed


class Trial:
    """A setting and its times."""

    def __init__(self, precision, threads, training, compiled=False):
        self.precision, self.threads, self.compiled = precision, threads, compiled
        self.training, self.times, self.failed = training, [], None

    def iterate(self, timed=True):
        if self.threads:
            torch.set_num_threads(self.threads)
        begun = time.perf_counter()
        self.training.iteration()  # reads its losses: a GPU is waited for
        if timed:
            self.times.append(time.perf_counter() - begun)

    @property
    def seconds(self):
        return min(self.times, default=None)

    def report(self):
        found = {"precision": self.precision, "threads": self.threads, "compiled": self.compiled}
        found["seconds"] = self.seconds
        if self.failed:
            found["failed"] = self.failed
        return found


def fastest(trials):
    return min((t for t in trials if t.times), key=lambda t: t.seconds)


def tried(trials):
    """Times the settings in turn; those that are far behind after one try are left."""
    for trial in trials:
        trial.iterate(timed=False)
    for trial in trials:
        trial.iterate()
    best = fastest(trials).seconds
    left = [trial for trial in trials if trial.seconds <= HOPELESS * best]
    for _ in range(TRIES - 1):
        for trial in left:
            trial.iterate()


def too_long(*_):
    raise TimeoutError(f"more than {COMPILE_SECONDS} s")


def words(error):
    """The error's kind and first line, without paths of this machine."""
    line = str(error).strip().split("\n")[0]
    line = re.sub(r"\S*/\S*", "…", line)
    return f"{type(error).__name__}: {line}"[:200].rstrip(": ")


def compiled(best, make):
    """The trial of torch.compile beside the best setting without it."""
    trial = Trial(best.precision, best.threads, None, compiled=True)
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(COMPILE_SECONDS)
    try:
        trial.training = make(best.precision, compiled=True)
        # The second iteration compiles again where the first one's assumptions do not hold.
        for _ in range(2):
            trial.iterate(timed=False)
        signal.alarm(0)
        for _ in range(TRIES):
            best.iterate()
            trial.iterate()
    except Exception as error:  # whatever it fails with: eager PyTorch does the work
        trial.failed, trial.times = words(error), []
    finally:
        signal.alarm(0)
    return trial


def main():
    folder, device, precision, threads, *rest = sys.argv[1:]
    torch.set_flush_denormal(True)
    given = inputs.Inputs(folder, device)

    def make(precision, compiled=False):
        return Training(given, precision, given.x[:IMAGES], "one-pass" in rest, compiled)

    precisions = ("fp32", "bf16") if precision == "auto" else (precision,)
    on_cpu = device == "cpu"
    own = torch.get_num_threads()
    numbers = sorted({own, *map(int, threads.split(","))}) if on_cpu else [0]
    trials = []
    for each in precisions:
        training = make(each)
        trials += [Trial(each, number, training) for number in numbers]
    tried(trials)
    best = fastest(trials)
    if on_cpu:
        trials.append(compiled(best, make))
    best = fastest(trials)
    choice = {"precision": best.precision, "threads": best.threads, "compiled": best.compiled}
    choice["trials"] = [trial.report() for trial in trials]
    _answer.write(json.dumps(choice) + "\n")
    _answer.flush()


if __name__ == "__main__":
    main()
