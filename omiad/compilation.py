"""`--compile`: backbone and denoising network become code of their own, by torch.compile."""

import logging
from typing import Literal, get_args

import torch

from omiad.detector import Detector
from omiad.errors import InputError
from omiad.names import one_line
from omiad.predictor import Predictor

logger = logging.getLogger(__name__)

CompileMode = Literal["default", "reduce-overhead"]
"""Modes of torch.compile; reduce-overhead records CUDA graphs."""


def check_mode(mode: CompileMode, device: torch.device) -> None:
    """Refuse a mode that torch.compile does not have, or that the device cannot run.

    Raises:
        InputError: If the mode is unknown, or needs a GPU.
    """
    if mode not in get_args(CompileMode):
        modes = " or ".join(get_args(CompileMode))
        raise InputError(f"--compile must be {modes}, but got '{mode}'.")
    if mode == "reduce-overhead" and device.type != "cuda":
        raise InputError(
            f"--compile reduce-overhead records CUDA graphs, which need a GPU, but the model is on "
            f"'{device}'. Use --compile default."
        )


@torch.no_grad()
def compile_detector(predictor: Predictor, mode: CompileMode) -> None:
    """Compile the backbone and the denoising network of a detector, in place.

    Both always see batches of one length, so each is compiled once, now, which takes seconds to
    minutes. Scores differ from those of the same detector uncompiled by rounding.

    Args:
        predictor: A detector on its device.
        mode: default; or reduce-overhead, which records CUDA graphs and needs a GPU.

    Raises:
        InputError: If the model is an export, the mode is unknown or needs a GPU, or torch cannot
            compile here.
    """
    device = predictor.map_range.device
    check_mode(mode, device)
    if not isinstance(predictor, Detector):
        raise InputError(
            f"{predictor.source} is an export, and compiled already. Leave out --compile."
        )
    logger.info("compiling the model, which can take minutes")
    for network in (predictor.extractor.fast_backbone, predictor.denoiser.network):
        # Not Module.compile: hooks, which time the parts of a model, must stay outside.
        network.forward = torch.compile(network.forward, mode=mode, dynamic=False)
    photograph = torch.zeros(1, 3, *predictor.extractor.tiling.canvas, dtype=torch.uint8)
    try:
        predictor.assess_images(photograph.to(device), None)
    except InputError:
        raise
    except Exception as error:  # torch, its compiler and the compiler of C++ raise many kinds
        raise InputError(
            f"The model cannot be compiled here ({one_line(str(error))[:300]}). torch.compile "
            f"needs a C++ compiler, and Triton on a GPU. Install them, or leave out --compile."
        ) from error
