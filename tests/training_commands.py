"""Trainings by the command: in this process, in others that are stopped and killed, under torchrun."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import consolve.cli

PROGRAM = str(Path(__file__).parent / "learned" / "training_process.py")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(consolve.__file__).parents[1])}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def command(*words):
    """Exit code of a command, run in this process."""
    return consolve.cli.run([str(word) for word in words])


def log(path):
    with open(path, newline="") as file:
        return [[row[0], *row[2:]] for row in csv.reader(file)]


def process(every, fault, words, launcher=()):
    words = [sys.executable, *launcher, PROGRAM, str(every), fault, *map(str, words)]
    return subprocess.Popen(
        words,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def outcome(started, timeout=300):
    """Exit code and stderr; a process that hangs is killed, with all that it started."""
    try:
        _, error = started.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
        raise
    return started.returncode, error


def wait_for(path, started, newer_than=0.0):
    while not path.exists() or path.stat().st_mtime <= newer_than:
        if started.poll() is not None:
            return
        time.sleep(0.005)
