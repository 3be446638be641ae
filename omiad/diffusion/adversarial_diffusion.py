"""Losses of adversarial diffusion distillation (ADD, Sauer et al. 2024), the baseline of Table 3.

Each loss returns one value per sample. ||x||^2 of features is a mean over elements.

Deviation: ADD's discriminator reads images through DINOv2 and is conditioned on text. Here its
heads read nearly clean features through the frozen teacher's encoder, without conditioning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError


@dataclass(frozen=True)
class AdversarialDiffusion:
    """How ADD weighs its terms.

    Deviation: ADD's discriminator looks through a DINOv2 and is told the text; here its heads look
    through the frozen teacher's encoder at nearly clean features and are told nothing.

    Attributes:
        lambda_distill: Weight of the distance to the teacher's estimate beside the adversarial
            loss (ADD eq. 2).
        r1_weight: Weight of the R1 penalty on the heads' inputs (ADD section 3.2, gamma).
        feature_step: Step at which the teacher's encoder reads features; 1 is all but clean.
        head_width: Channels inside each head.
    """

    lambda_distill: float = 2.5
    r1_weight: float = 1e-5
    feature_step: int = 1
    head_width: int = 64

    def __post_init__(self) -> None:
        """Refuse weights below zero and heads without channels.

        Raises:
            InputError: If lambda_distill or r1_weight is negative, or head_width below 1.
        """
        if min(self.lambda_distill, self.r1_weight) < 0 or self.head_width < 1:
            raise InputError(
                f"ADD needs lambda_distill and r1_weight of at least 0 and head_width of at least "
                f"1, but got {self.lambda_distill}, {self.r1_weight} and {self.head_width}."
            )


def teacher_distance(x_g: Tensor, estimate: Tensor, weight: Tensor) -> Tensor:
    """Return c(t) ||x_g - x_0_hat||^2 (ADD eq. 4), (B,).

    The minimum of this term alone is a mode of the data, where the teacher does not change x_g.

    Args:
        x_g: Generated features (B, C, H, W), with their graph.
        estimate: The teacher's estimate of x_0 from x_g noised to t, (B, C, H, W); no gradient
            flows through it.
        weight: c(t), (B,).
    """
    return weight * (x_g - estimate.detach()).square().flatten(1).mean(1)


def hinge_discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return the hinge loss, summed over the heads (ADD eq. 3 without R1), (B,).

    Args:
        real: Logits (B, 1, H_k, W_k) of each head for real features.
        fake: Logits (B, 1, H_k, W_k) of each head for generated features.
    """
    return _sum_of_means([F.relu(1 - x) for x in real] + [F.relu(1 + x) for x in fake])


def hinge_generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """Return the adversarial term of ADD eq. 2: -D, summed over the heads, (B,)."""
    return -_sum_of_means(fake)


def r1_penalty(real: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Return the R1 penalty ||d D_k / d F_k||^2, summed over the heads (ADD eq. 3), (B,).

    The penalty keeps its graph, so that it can be minimised; here ||x||^2 is a sum.

    Args:
        real: Logits (B, 1, H_k, W_k) of each head for real features; D_k is their mean.
        inputs: Inputs F_k of each head, (B, C_k, H_k, W_k), requiring gradients.
    """
    gradients = torch.autograd.grad(_sum_of_means(real).sum(), list(inputs), create_graph=True)
    return torch.stack([g.square().flatten(1).sum(1) for g in gradients]).sum(0)


def _sum_of_means(maps: Sequence[Tensor]) -> Tensor:
    return torch.stack([x.float().flatten(1).mean(1) for x in maps]).sum(0)
