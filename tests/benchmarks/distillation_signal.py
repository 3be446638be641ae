"""Where distillation pulls: errors, score gap and gradients of stage 2 in bands of timesteps.

The script loads the teacher, student and generator from a stage-2 checkpoint and asks, on test
images: How well does each network reconstruct normal and defective images? How well does the
teacher denoise? At which noise does each loss pull the generator's output towards the photograph
(cosine above 0) or away from it?

    python tests/benchmarks/distillation_signal.py --ckpt_path CKPT --root DATA [--num_images 64]
"""

import argparse
import copy
from itertools import pairwise

import torch
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from omiad import Detector, FeatureDataModule
from omiad.checkpoint import read_checkpoint
from omiad.data import ImageDataset
from omiad.diffusion import Denoiser, Masking
from omiad.diffusion.losses import (
    discriminator_logits,
    distillation_weight,
    generator_adversarial_loss,
    score_distillation_loss,
)
from omiad.diffusion.sampling import ddim_reconstruct


def denoisers(path: str, detector: Detector) -> dict[str, Denoiser]:
    """Return the networks of stage 2 by name, and the averaged generator that scores."""
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
    """Return normalised features (N, C, h, w) of every n-th test image, and their labels (N,)."""
    samples = FeatureDataModule(root, weights=ckpt).samples("test")
    samples = samples[:: max(1, len(samples) // count)]
    items = list(ImageDataset(samples, detector.extractor.image_size))
    features = [detector.normalizer(detector.extractor(item.images[None])) for item in items]
    return torch.cat(features), torch.stack([item.labels.is_anomalous for item in items])


def table_of(title: str, *headings: str) -> Table:
    return Table(*(Column(heading, justify="right") for heading in headings), title=title)


@torch.no_grad()
def reconstruction_table(
    nets: dict[str, Denoiser], detector: Detector, x_0: Tensor, bad: Tensor
) -> Table:
    """Compare reconstructions: mean squared error per element, and spread of the output."""
    schedule, noise, t_init = detector.denoiser.schedule, detector.noise[0], detector.t_init
    title = f"reconstruction from t {t_init}, mean over elements"
    headings = ("network", "error, normal", "error, defective", "output variance, normal")
    table = table_of(title, *headings)
    outputs = {
        f"{name}, one step": ddim_reconstruct(
            nets[name], schedule, x_0, noise, t_init=t_init, num_steps=1
        )
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
    """Measure how well the teacher denoises at single steps, with and without the paper's mask."""
    table = table_of(
        "the teacher on normal images, mean over elements; last two with a mask",
        *("t", "error of x_0", "error of x_t / alpha", "variance of x_0", "noise error"),
        *("error, visible", "error, hidden"),
    )
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
        masked = teacher(teacher.schedule.add_noise(x_0 * keep, noise, t), t)
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


def band_table(
    nets: dict[str, Denoiser],
    detector: Detector,
    x_0: Tensor,
    *,
    alpha: float,
    t_max: int,
    num_draws: int,
    seed: int,
) -> Table:
    """Compare scores and gradients in each band of timesteps.

    The gradient of an image is averaged over many draws of t and noise before its cosine is taken,
    since the gradient of a single draw is mostly noise and orthogonal to any direction.
    """
    schedule = detector.denoiser.schedule
    pull = ("norm", f"cosine, {num_draws // 2} draws", f"cosine, {num_draws} draws")
    table = table_of(
        f"at the generator's output, {len(x_0)} normal images",
        *("t", "teacher error", "student error", "score gap"),
        *(f"{loss}: {each}" for loss in ("distillation", "adversarial") for each in pull),
    )
    with torch.no_grad():
        x_g = ddim_reconstruct(
            nets["generator"], schedule, x_0, detector.noise[0], t_init=detector.t_init, num_steps=1
        )
    away = (x_g - x_0).flatten(1)
    generator = torch.Generator().manual_seed(seed)
    for low, high in pairwise(round(t_max * i / 4) for i in range(5)):
        errors, pulls = torch.zeros(3), torch.zeros(2, *away.shape)
        halfway = pulls
        for draw in range(num_draws):
            t = torch.randint(low + 1, high + 1, (len(x_0),), generator=generator)
            noise = torch.randn(x_0.shape, generator=generator)
            drawn = gradients(nets, x_g, noise, t, alpha=alpha)
            errors, pulls = errors + drawn[0], pulls + drawn[1].flatten(2)
            if draw + 1 == num_draws // 2:
                halfway = pulls
        figures = (errors / num_draws).tolist()
        for half, whole in zip(halfway, pulls, strict=True):
            figures += [
                float((whole / num_draws).norm(dim=1).mean()),
                float(F.cosine_similarity(half, away).mean()),
                float(F.cosine_similarity(whole, away).mean()),
            ]
        table.add_row(f"{low + 1}..{high}", *(f"{f:.3g}" for f in figures))
    return table


def gradients(
    nets: dict[str, Denoiser], x_g: Tensor, noise: Tensor, t: Tensor, *, alpha: float
) -> tuple[Tensor, Tensor]:
    """Return the errors of teacher and student and their gap (3,), and d / d x_g of both losses."""
    x_g = x_g.detach().requires_grad_()
    x_t = nets["teacher"].schedule.add_noise(x_g, noise, t)
    teacher = nets["teacher"](x_t, t)
    output, encoding = nets["student"].network.forward_and_encode(x_t, t)  # type: ignore[operator]
    student = nets["student"].interpret(output, x_t, t)
    weight = distillation_weight(x_g, teacher)
    losses = (
        score_distillation_loss(x_g, teacher, student, weight=weight, alpha=alpha),
        weight * generator_adversarial_loss(discriminator_logits(encoding)),
    )
    pulls = [torch.autograd.grad(loss.sum(), x_g, retain_graph=True)[0] for loss in losses]
    gaps = (teacher.x_0 - x_g, student.x_0 - x_g, teacher.x_0 - student.x_0)
    return torch.stack([gap.detach().square().mean() for gap in gaps]), torch.stack(pulls)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--num_images", type=int, default=64)
    parser.add_argument("--num_draws", type=int, default=32)
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
    trained = read_checkpoint(options.ckpt_path)["hyper_parameters"]
    band = {"alpha": trained["alpha"], "t_max": trained["t_max"], "seed": options.seed}
    console.print(band_table(nets, detector, x_0[~bad], num_draws=options.num_draws, **band))


if __name__ == "__main__":
    main()
