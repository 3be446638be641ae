"""What `omiad fit --help` and `omiad test --help` print: omiad's own options, grouped."""

import inspect
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from textwrap import wrap
from typing import NamedTuple

import docstring_parser  # a dependency of jsonargparse, which reads the same docstrings
from lightning import Trainer

from omiad.callbacks import Evaluation, LastCheckpoint
from omiad.data import FeatureDataModule
from omiad.modules import AMDMModule, DecoderModule, OmiADModule
from omiad.training import FIT_HELP, TEST_HELP

COLUMN = 36
"""Where the meaning of an option begins."""

RUN = {
    "config": "Configuration file; may be given several times, and any option beats it.",
    "run_dir": "Folder of this run; by default a new one under runs/.",
    "ckpt_path": "Checkpoint to resume a run from, or to test.",
    "seed_everything": "Seed of the data order, the initial weights and the noise.",
    "print_config": "Print the whole configuration and exit.",
    "help_all": "List every option, most of them Lightning's.",
}

TRAINER = ("accelerator", "devices", "precision", "max_steps", "max_epochs")

REST = """\
omiad {command} --help_all             lists every option, most of them Lightning's.
omiad {command} --print_config ...     prints the whole configuration that the options give.
omiad fit --model.help CLASS      explains every option of a class in full.
"""
