"""A training as the command has it, with a validation every few steps.

``[torchrun] training_process.py EVERY FAULT ARGUMENTS`` with the arguments of ``consolve``.  FAULT is
``none``, ``interrupt:P:N`` (process P gets SIGINT after step N) or ``fail:P:N`` (it raises).
"""

import os
import signal
import sys

every, fault = int(sys.argv[1]), sys.argv[2]
sys.argv[1:] = sys.argv[3:]

import consolve.cli  # noqa: E402
from consolve.learned.training.run import TrainingRun  # noqa: E402

kind, process, step = (fault.split(":") + ["", ""])[:3]
mine = process == os.environ.get("RANK", "0")
run, train_step = TrainingRun.run, TrainingRun._train_step


def faulty_step(training):
    train_step(training)
    if mine and training.step == int(step):
        if kind == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        if kind == "fail":
            raise RuntimeError("no memory left")


TrainingRun.run = lambda training, report=None: run(training, report, validate_every=every)
TrainingRun._train_step = faulty_step
consolve.cli.main()
