"""How long a run is, for what is set as a share of it."""

import math

from lightning import Trainer


def run_images(trainer: Trainer, *, batch_images: int, steps_per_batch: float) -> float:
    """Return how many images a run will see: by epochs or steps, whichever ends it first.

    Args:
        trainer: The attached trainer.
        batch_images: Images in a batch, over all ranks.
        steps_per_batch: Optimiser steps of a batch, on average.
    """
    batches = math.inf
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        batches = trainer.max_epochs * trainer.num_training_batches
    if trainer.max_steps > 0:
        batches = min(batches, trainer.max_steps / steps_per_batch)
    return batches * batch_images
