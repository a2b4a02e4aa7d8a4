"""The protocol of a worker: JSON lines on standard output, commands on standard input.

{"ready": true, ...} once everything is loaded and warm; then for every `go` one timed unit of
work, answered by {"seconds": S}; `stop` is answered by {"peak_mib": M}.
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


def serve(facts, unit):
    """Answers commands until `stop`; `unit` is what is timed."""
    commands = queue.Queue()
    threading.Thread(target=_read, args=(commands,), daemon=True).start()
    forget_peak()
    say({"ready": True, **facts})
    while True:
        command = commands.get()
        if command == "go":
            begun = time.perf_counter()
            unit()
            say({"seconds": time.perf_counter() - begun})
        elif command == "stop":
            say({"peak_mib": peak_mib()})
            return
        else:
            raise SystemExit(f"unknown command `{command}`")
