"""Both stages on a tiny data set: what moves, what does not, and what is rejected."""

import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningDataModule, Trainer
from tiny import NETWORK, amdm, data_of, distilled, fit_and_save, same, trainer_of, weights

from omiad import AMDMModule, Detector, OmiADModule
from omiad.diffusion.sampling import one_step_reconstruct
from omiad.errors import InputError


@pytest.fixture(scope="module")
def teacher(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_and_save(amdm(), mvtec_root, tmp_path_factory.mktemp("teacher"), 6)


def test_stage_1_moves_the_network_and_its_average_alone(mvtec_root: Path, tmp_path: Path) -> None:
    module, data = amdm(), data_of(mvtec_root, tmp_path)
    data.setup("fit")
    backbone = weights(data.extractor)
    trainer_of(tmp_path, 3).fit(module, datamodule=data)
    fresh = amdm()
    trainer_of(tmp_path, 1).fit(fresh, datamodule=data_of(mvtec_root, tmp_path))
    assert not same(weights(module.network), weights(fresh.network))
    assert not same(weights(module.detector.denoiser), weights(module.denoiser))
    assert same(weights(data.extractor), backbone)
    assert module.images_seen == 12


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs(
    mvtec_root: Path, tmp_path: Path
) -> None:
    runs = []
    for seed in (0, 0, 1):
        module = amdm(seed=seed)
        trainer_of(tmp_path, 3).fit(module, datamodule=data_of(mvtec_root, tmp_path))
        runs.append(weights(module.network))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_the_generator_starts_as_the_teachers_one_step_bit_for_bit(
    mvtec_root: Path, tmp_path: Path, teacher: Path, generator: torch.Generator
) -> None:
    # Only the student trains in so short a warm-up.
    module, _ = distilled(mvtec_root, tmp_path, teacher, 1, student_warmup_fraction=1.0)
    x_0, noise = torch.randn(
        2, 2, module.detector.extractor.num_channels, 8, 8, generator=generator
    )
    schedule = module.teacher.schedule
    of_teacher, of_generator = (
        one_step_reconstruct(d, schedule, x_0, noise, t_init=500)
        for d in (Detector.load(teacher).denoiser, module.generator)
    )
    assert torch.equal(of_teacher, of_generator)
    assert module.num_generator_steps == 0
    assert not same(weights(module.student), weights(module.teacher))


def test_stage_2_moves_student_and_generator_and_leaves_the_teacher(
    mvtec_root: Path, tmp_path: Path, teacher: Path
) -> None:
    module, trainer = distilled(
        mvtec_root,
        tmp_path,
        teacher,
        6,
        student_warmup_fraction=0.0,
        adversarial_start_fraction=0.0,
    )
    start = weights(Detector.load(teacher).denoiser)
    assert same(weights(module.teacher), start)
    assert not module.teacher.training
    assert not same(weights(module.generator), start)
    assert not same(weights(module.student), start)
    assert not same(weights(module.generator), weights(module.student))
    assert not same(weights(module.detector.denoiser), start)
    assert module.num_generator_steps == 3
    assert trainer.global_step == 6  # two optimiser steps for each batch
    assert all(p.requires_grad for p in module.student.parameters())
    assert not any(p.requires_grad for p in module.teacher.parameters())
    assert not any(p.requires_grad for p in module.detector.denoiser.parameters())


class Movements(Callback):
    """Note which of the named modules moved in psi's phase, and which in theta's."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []

    def look(self, module: OmiADModule) -> None:
        parts = {
            "student": module.student,
            "generator": module.generator,
            "teacher": module.teacher,
            "average": module.detector.denoiser,
            "backbone": module.detector.extractor,
        }
        now = {
            f"{part}.{name}": p.detach().clone()
            for part, network in parts.items()
            for name, p in network.named_parameters()
        }
        if self.before:
            self.moved.append({n for n, p in now.items() if not torch.equal(p, self.before[n])})
        self.before = now

    def on_train_batch_start(self, trainer: Trainer, pl_module: OmiADModule, *_: object) -> None:  # type: ignore[override]
        self.before: dict[str, torch.Tensor] = {}
        self.look(pl_module)

    def on_before_optimizer_step(
        self,
        trainer: Trainer,
        pl_module: OmiADModule,  # type: ignore[override]
        optimizer: torch.optim.Optimizer,
    ) -> None:
        if optimizer is trainer.optimizers[0]:
            self.of_student = [p.grad.clone() for p in pl_module.student.parameters()]
        else:
            self.look(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: OmiADModule, *_: object) -> None:  # type: ignore[override]
        self.look(pl_module)
        # No gradient reached psi in theta's phase.
        assert same([p.grad for p in pl_module.student.parameters()], self.of_student)
        assert all(p.grad is None for p in pl_module.teacher.parameters())


def test_each_phase_moves_exactly_its_own_parameters(
    mvtec_root: Path, tmp_path: Path, teacher: Path
) -> None:
    module = OmiADModule(
        str(teacher), student_warmup_fraction=0.0, adversarial_start_fraction=0.0, ema_fraction=0.5
    )
    movements = Movements()
    trainer = trainer_of(tmp_path, 6, callbacks=[movements])
    trainer.fit(module, datamodule=data_of(mvtec_root, tmp_path))
    of_student, of_generator = movements.moved[-2:]
    names = {name for name, _ in module.student.named_parameters()}
    assert of_student <= {f"student.{name}" for name in names}
    assert of_generator <= {f"{part}.{name}" for part in ("generator", "average") for name in names}
    # In a network this narrow, normalisation takes the gradient of some biases away.
    for network, part, moved in (
        (module.student, "student", of_student),
        (module.generator, "generator", of_generator),
        (module.generator, "average", of_generator),
    ):
        pushed = {n for n, p in network.named_parameters() if p.grad.abs().max() > 1e-9}
        assert len(pushed) > 0.7 * len(names)
        assert {f"{part}.{name}" for name in pushed} <= moved


def test_a_checkpoint_of_either_stage_is_a_detector(
    mvtec_root: Path, tmp_path: Path, teacher: Path, generator: torch.Generator
) -> None:
    module, trainer = distilled(mvtec_root, tmp_path, teacher, 4, student_warmup_fraction=0.0)
    trainer.save_checkpoint(tmp_path / "omiad.ckpt")
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator)
    loaded = Detector.load(tmp_path / "omiad.ckpt")
    expected = module.detector(images)
    whole = loaded(images)
    assert torch.equal(whole.score, expected.score)
    assert torch.equal(whole.anomaly_map, expected.anomaly_map)
    parts = torch.cat([loaded(images[:2]).score, loaded(images[2:]).score])
    torch.testing.assert_close(parts, whole.score, rtol=1e-5, atol=1e-6)
    assert torch.equal(loaded.map_range, module.detector.map_range)


@pytest.mark.parametrize(
    ("stage", "precision"), [("AMDM", "bf16-true"), ("OmiAD", "bf16-true"), ("OmiAD", "16-mixed")]
)
def test_a_precision_that_would_lose_small_steps_is_refused(
    mvtec_root: Path, tmp_path: Path, teacher: Path, stage: str, precision: str
) -> None:
    module = amdm() if stage == "AMDM" else OmiADModule(str(teacher))
    trainer = trainer_of(tmp_path, 1)
    trainer.strategy.precision_plugin.precision = precision  # 16-mixed itself needs a GPU
    with pytest.raises(InputError, match=rf"--trainer\.precision {precision}"):
        trainer.fit(module, datamodule=data_of(mvtec_root, tmp_path))


def test_training_learns_and_finds_a_defect_never_shown(mvtec_root: Path, tmp_path: Path) -> None:
    module = amdm()
    data = data_of(mvtec_root, tmp_path)
    trainer_of(tmp_path, 120).fit(module, datamodule=data)
    data.setup("test")
    scores, labels = [], []
    for batch in data.test_dataloader():
        scores.append(module.detector(batch.images).anomaly_map.amax((1, 2)))
        labels.append(batch.labels.is_anomalous)
    score, label = torch.cat(scores), torch.cat(labels)
    # A black square in stripes: the gap is several times the normals' spread.
    assert score[label].min() > score[~label].max()


def test_an_unusable_t_init_is_warned_about_with_the_matching_one(
    mvtec_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="omiad"):
        trainer_of(tmp_path, 1).fit(amdm(t_init=960), datamodule=data_of(mvtec_root, tmp_path))
    assert "--model.t_init 4" in caplog.text or "--model.t_init 5" in caplog.text
    assert "the signal is buried" in caplog.text


def test_a_loss_that_is_no_number_stops_the_run(mvtec_root: Path, tmp_path: Path) -> None:
    module = AMDMModule(
        NETWORK, partial(torch.optim.SGD, lr=1e30), feature_norm="channel", gradient_clip=1e30
    )
    with pytest.raises(InputError, match="The training loss became"):
        trainer_of(tmp_path, 20).fit(module, datamodule=data_of(mvtec_root, tmp_path))


def test_few_photographs_of_a_category_are_warned_about(
    mvtec_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="omiad"):
        trainer_of(tmp_path, 1).fit(amdm(), datamodule=data_of(mvtec_root, tmp_path))
    assert "'bottle' has 4 training photographs" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"omiad": None}, "did not write the checkpoint"),
        ({"format": 1}, "another checkpoint format"),
        ({"module": "OmiADModule"}, "holds an OmiADModule, but .* AMDMModule"),
    ],
)
def test_a_checkpoint_that_does_not_belong_to_the_model_is_not_resumed(
    mvtec_root: Path, tmp_path: Path, teacher: Path, change: dict[str, object], message: str
) -> None:
    checkpoint = torch.load(teacher, weights_only=True)
    if "omiad" in change:
        del checkpoint["omiad"]
    else:
        checkpoint["omiad"] |= change
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=message):
        trainer_of(tmp_path, 9).fit(
            amdm(), datamodule=data_of(mvtec_root, tmp_path), ckpt_path=tmp_path / "other.ckpt"
        )


@pytest.mark.parametrize(("argument", "value"), [("seed", 1), ("feature_size", 4)])
def test_another_backbone_than_the_teachers_is_refused(
    mvtec_root: Path, tmp_path: Path, teacher: Path, argument: str, value: int
) -> None:
    name = "weights" if argument == "seed" else argument
    with pytest.raises(InputError, match=rf"the teacher was trained with.*--data\.{name}"):
        trainer_of(tmp_path, 1).fit(
            OmiADModule(str(teacher)),
            datamodule=data_of(mvtec_root, tmp_path, **{argument: value}),
        )


def test_a_distilled_model_is_no_teacher(mvtec_root: Path, tmp_path: Path, teacher: Path) -> None:
    student = fit_and_save(OmiADModule(str(teacher)), mvtec_root, tmp_path, 2)
    with pytest.raises(InputError, match="holds an OmiAD model"):
        distilled(mvtec_root, tmp_path, student, 2)


def test_a_t_init_of_zero_is_refused_and_not_replaced(
    mvtec_root: Path, tmp_path: Path, teacher: Path
) -> None:
    with pytest.raises(InputError, match=r"t_init must lie in 1..1000, but got 0"):
        distilled(mvtec_root, tmp_path, teacher, 1, t_init=0)


def test_a_generator_without_a_discriminator_to_fool_is_refused(teacher: Path) -> None:
    with pytest.raises(InputError, match="lambda_student_adv"):
        OmiADModule(str(teacher), lambda_student_adv=0.0)


def test_processes_that_would_wait_for_the_other_network_are_refused(
    mvtec_root: Path, tmp_path: Path, teacher: Path
) -> None:
    trainer = trainer_of(tmp_path, 1, strategy="ddp", devices=1)
    try:
        with pytest.raises(InputError, match=r"ddp_find_unused_parameters_true"):
            trainer.fit(OmiADModule(str(teacher)), datamodule=data_of(mvtec_root, tmp_path))
    finally:
        torch.distributed.destroy_process_group()


def test_another_data_module_is_refused(tmp_path: Path) -> None:
    class Other(LightningDataModule):
        def train_dataloader(self) -> list[int]:
            return [1]

    with pytest.raises(InputError, match="AMDMModule needs a FeatureDataModule"):
        trainer_of(tmp_path, 1).fit(amdm(), datamodule=Other())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t_init": 1001}, r"t_init must lie in 1..1000"),
        ({"num_steps": 501}, r"num_steps must lie in 1..500"),
        ({"num_noise_draws": 0}, "num_noise_draws must be at least 1"),
        ({"eta": 1.5}, r"eta must lie in 0..1, but got 1.5"),
    ],
)
def test_impossible_inference_settings_are_refused(
    mvtec_root: Path, tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        trainer_of(tmp_path, 1).fit(amdm(**arguments), datamodule=data_of(mvtec_root, tmp_path))
