"""Where distillation pulls: errors, score gap and gradients of stage 2 in bands of timesteps.

Loads a stage-2 checkpoint with the teacher, student and generator in it, and asks on photographs
never trained on: how well does each reconstruct normal and defective images, how well does the
teacher denoise at all, and at which noise does each loss pull the generator's output towards the
photograph (cosine above 0) or away from it?

    python tests/benchmarks/distillation_signal.py --ckpt_path CKPT --root DATA [--num_images 64]
"""

import argparse
import copy

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from omiad import Detector, FeatureDataModule
from omiad.data import ImageDataset
from omiad.detector import read_checkpoint
from omiad.diffusion import Denoiser, Masking
from omiad.diffusion.losses import (
    discriminator_logits,
    distillation_weight,
    generator_adversarial_loss,
    score_distillation_loss,
)
from omiad.diffusion.masking import apply_mask
from omiad.diffusion.sampling import ddim_reconstruct, one_step_reconstruct

BANDS = [(1, 248), (249, 495), (496, 742), (743, 990)]


def denoisers(path: str, detector: Detector) -> dict[str, Denoiser]:
    """Return the networks that stage 2 trained, by name, and the average that is scored."""
    state = read_checkpoint(path)["state_dict"]
    loaded = {"average": detector.denoiser}
    for name in ("teacher", "generator", "student"):
        prefix = f"{name}."
        loaded[name] = copy.deepcopy(detector.denoiser)
        loaded[name].load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
    return loaded


@torch.no_grad()
def features_of(detector: Detector, root: str, ckpt: str, count: int) -> tuple[Tensor, Tensor]:
    """Return normalised features (N, C, h, w) of test images, evenly picked, and their labels."""
    samples = FeatureDataModule(root, weights=ckpt).samples("test")
    samples = samples[:: max(1, len(samples) // count)]
    items = list(ImageDataset(samples, detector.extractor.image_size))
    features = [detector.normalizer(detector.extractor(item.images[None])) for item in items]
    return torch.cat(features), torch.stack([item.is_anomalous for item in items])


@torch.no_grad()
def reconstruction_table(nets: dict[str, Denoiser], detector: Detector, x_0: Tensor, bad: Tensor):  # type: ignore[no-untyped-def]
    """Compare reconstructions: mean squared error per element, and spread of the output."""
    schedule, noise, t_init = detector.denoiser.schedule, detector.noise[0], detector.t_init
    table = Table(title=f"reconstruction from t {t_init}, mean over elements")
    for heading in ("network", "error, normal", "error, defective", "output variance, normal"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    outputs = {
        f"{name}, one step": one_step_reconstruct(nets[name], schedule, x_0, noise, t_init=t_init)
        for name in ("teacher", "generator", "average")
    }
    for num_steps in (2, 5, 10):
        outputs[f"teacher, DDIM-{num_steps}"] = ddim_reconstruct(
            nets["teacher"], schedule, x_0, noise, t_init=t_init, num_steps=num_steps
        )
    for name, out in outputs.items():
        error = (out - x_0).square().mean((1, 2, 3))
        figures = (error[~bad].mean(), error[bad].mean(), out[~bad].var())
        table.add_row(name, *(f"{float(f):.4f}" for f in figures))
    table.add_row("the features", "0", "0", f"{float(x_0[~bad].var()):.4f}")
    return table


@torch.no_grad()
def denoising_table(teacher: Denoiser, x_0: Tensor, seed: int) -> Table:
    """Say how well the teacher denoises at single steps, without a mask and with the paper's."""
    table = Table(title="the teacher on normal images, mean over elements; last two with a mask")
    for heading in (
        "t",
        "error of x_0",
        "error of x_t / alpha",
        "variance of x_0",
        "noise error",
        "error, visible",
        "error, hidden",
    ):
        table.add_column(heading, justify="right")
    masking = Masking()
    generator = torch.Generator().manual_seed(seed)
    for step in (10, 50, 100, 200, 300, 400, 500, 700, 900):
        t = torch.full((len(x_0),), step)
        noise = torch.randn(x_0.shape, generator=generator)
        estimate = teacher(teacher.schedule.add_noise(x_0, noise, t), t)
        uniform = torch.rand(
            len(x_0), *masking.uniform_shape(tuple(x_0.shape[1:])), generator=generator
        )
        keep = masking.keep(uniform, t, teacher.schedule.num_timesteps)
        masked = teacher(teacher.schedule.add_noise(apply_mask(x_0, keep), noise, t), t)
        error = (masked.x_0 - x_0).square().mean(1, keepdim=True)
        figures = (
            (estimate.x_0 - x_0).square().mean(),
            torch.tensor(teacher.schedule.noise_to_signal(step, 1.0) ** 2),
            estimate.x_0.var(),
            (estimate.noise - noise).square().mean(),
            (error * keep).sum() / keep.sum(),
            (error * (1 - keep)).sum() / (1 - keep).sum(),
        )
        table.add_row(str(step), *(f"{float(f):.3g}" for f in figures))
    return table


def band_table(nets: dict[str, Denoiser], detector: Detector, x_0: Tensor, seed: int) -> Table:
    """Compare scores and gradients in each band of timesteps, on normal images."""
    schedule = detector.denoiser.schedule
    table = Table(title="at the generator's output, normal images, mean over elements")
    headings = (
        "t",
        "teacher error",
        "student error",
        "score gap",
        "distillation: size",
        "cosine",
        "adversarial: size",
        "cosine",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    with torch.no_grad():
        made = one_step_reconstruct(
            nets["generator"], schedule, x_0, detector.noise[0], t_init=detector.t_init
        )
    generator = torch.Generator().manual_seed(seed)
    for low, high in BANDS:
        t = torch.randint(low, high + 1, (len(x_0),), generator=generator)
        noise = torch.randn(x_0.shape, generator=generator)
        rows: list[list[float]] = []
        for part in torch.arange(len(x_0)).split(16):
            x_g = made[part].requires_grad_()
            x_t = schedule.add_noise(x_g, noise[part], t[part])
            teacher = nets["teacher"](x_t, t[part])
            output, encoding = nets["student"].network.forward_and_encode(x_t, t[part])  # type: ignore[operator]
            student = nets["student"].interpret(output, x_t, t[part])
            weight = distillation_weight(x_g, teacher)
            losses = (
                score_distillation_loss(x_g, teacher, student, weight=weight),
                weight * generator_adversarial_loss(discriminator_logits(encoding)),
            )
            away = (x_g - x_0[part]).detach()
            figures = [
                (teacher.x_0 - x_g).square().mean((1, 2, 3)),
                (student.x_0 - x_g).square().mean((1, 2, 3)),
                (teacher.x_0 - student.x_0).square().mean((1, 2, 3)),
            ]
            for loss in losses:
                (pull,) = torch.autograd.grad(loss.sum(), x_g, retain_graph=True)
                figures += [
                    pull.flatten(1).norm(dim=1),
                    F.cosine_similarity(pull.flatten(1), away.flatten(1)),
                ]
            rows += torch.stack([f.detach() for f in figures], dim=1).tolist()
        means = torch.tensor(rows).mean(0)
        table.add_row(f"{low}..{high}", *(f"{float(m):.3g}" for m in means))
    return table


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--num_images", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    detector = Detector.load(options.ckpt_path)
    nets = denoisers(options.ckpt_path, detector)
    for network in nets.values():
        network.eval().requires_grad_(False)
    x_0, bad = features_of(detector, options.root, options.ckpt_path, options.num_images)
    console = Console()
    console.print(reconstruction_table(nets, detector, x_0, bad))
    console.print(denoising_table(nets["teacher"], x_0[~bad], options.seed))
    console.print(band_table(nets, detector, x_0[~bad], options.seed))


if __name__ == "__main__":
    main()
