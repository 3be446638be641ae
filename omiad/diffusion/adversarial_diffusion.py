"""Losses of adversarial diffusion distillation (ADD, Sauer et al. 2024), the baseline of Table 3.

Each loss returns one value per sample. ||x||^2 of features is a mean over elements.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)


def teacher_distance(x_g: Tensor, estimate: Tensor, weight: Tensor) -> Tensor:
    """Return c(t) ||x_g - x_0_hat||^2 (ADD eq. 4), (B,).

    The minimum of this term alone is a mode of the data, where the teacher does not change x_g.

    Args:
        x_g: Generated features (B, C, H, W), with their graph.
        estimate: The teacher's estimate of x_0 from x_g noised to t; no gradient flows through it.
        weight: c(t), (B,).
    """
    return weight * (x_g - estimate.detach()).square().flatten(1).mean(1)


def hinge_discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return the hinge loss of ADD eq. 3 without R1, summed over the heads, (B,).

    Each head gives logits (B, 1, H_k, W_k), `real` for features and `fake` for generated features.
    """
    return _sum_of_means([F.relu(1 - x) for x in real] + [F.relu(1 + x) for x in fake])


def hinge_generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """Return the adversarial term of ADD eq. 2: -D, summed over the heads, (B,)."""
    return -_sum_of_means(fake)


def r1_penalty(real: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Return the R1 penalty ||d D_k / d F_k||^2, summed over the heads (ADD eq. 3), (B,).

    The penalty keeps its graph, so that it can be minimised; here ||x||^2 is a sum.

    Args:
        real: Logits (B, 1, H_k, W_k) of each head; D_k is their mean.
        inputs: Inputs F_k of each head, (B, C_k, H_k, W_k), requiring gradients.
    """
    gradients = torch.autograd.grad(_sum_of_means(real).sum(), list(inputs), create_graph=True)
    return torch.stack([g.square().flatten(1).sum(1) for g in gradients]).sum(0)


def _sum_of_means(maps: Sequence[Tensor]) -> Tensor:
    return torch.stack([x.float().flatten(1).mean(1) for x in maps]).sum(0)
