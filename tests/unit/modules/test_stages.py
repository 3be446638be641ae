"""Both stages on a tiny data set: what moves, what does not, and what is rejected."""

import logging
import re
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningDataModule, Trainer
from tiny import Data, Fit, amdm, same, trainer_of, weights

from omiad import AMDMModule, Detector, OmiADModule
from omiad.checkpoint import seal
from omiad.errors import InputError


def module_of(stage: str, teacher: Path, **arguments: object) -> AMDMModule | OmiADModule:
    return amdm(**arguments) if stage == "AMDM" else OmiADModule(str(teacher), **arguments)  # type: ignore[arg-type]


def test_stage_1_moves_the_network_and_its_average_alone(data: Data, fit: Fit) -> None:
    module, tiny = amdm(), data()
    tiny.setup("fit")
    backbone = weights(tiny.extractor)
    fit(module, 3, datamodule=tiny)
    # The average follows the network, so a difference shows that the network moved.
    assert not same(weights(module.detector.denoiser), weights(module.denoiser))
    assert same(weights(tiny.extractor), backbone)
    assert module.images_seen == 12


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs(fit: Fit) -> None:
    runs = [amdm(seed=seed) for seed in (0, 0, 1)]
    for module in runs:
        fit(module, 3)
    first, again, other = (weights(module.denoiser) for module in runs)
    assert same(first, again)
    assert not same(first, other)


def test_the_generator_starts_as_the_teacher(fit: Fit, teacher: Path) -> None:
    module = OmiADModule(str(teacher), student_warmup_fraction=1.0)
    fit(module, 1)  # Only the student trains in so short a warm-up.
    assert same(weights(module.generator), weights(Detector.load(teacher).denoiser))
    assert module.num_generator_steps == 0
    assert not same(weights(module.student), weights(module.teacher))


class Snapshots(Callback):
    """Keep all weights before psi's phase, between the phases and after theta's phase."""

    def __init__(self) -> None:
        self.taken: list[dict[str, torch.Tensor]] = []

    def take(self, module: OmiADModule) -> None:
        parts = {
            "student": module.student,
            "generator": module.generator,
            "teacher": module.teacher,
            "average": module.detector.denoiser,
            "backbone": module.detector.extractor,
        }
        self.taken.append(
            {
                f"{part}.{name}": p.detach().clone()
                for part, network in parts.items()
                for name, p in network.named_parameters()
            }
        )

    def on_train_batch_start(self, trainer: Trainer, pl_module: OmiADModule, *_: object) -> None:  # type: ignore[override]
        self.take(pl_module)

    def on_before_optimizer_step(
        self,
        trainer: Trainer,
        pl_module: OmiADModule,  # type: ignore[override]
        optimizer: torch.optim.Optimizer,
    ) -> None:
        if optimizer is trainer.optimizers[0]:
            self.of_student = [p.grad.clone() for p in pl_module.student.parameters()]
        else:
            self.take(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: OmiADModule, *_: object) -> None:  # type: ignore[override]
        self.take(pl_module)
        # No gradient reached psi in theta's phase.
        assert same([p.grad for p in pl_module.student.parameters()], self.of_student)
        assert all(p.grad is None for p in pl_module.teacher.parameters())


def test_each_phase_of_stage_2_moves_exactly_its_own_parameters(fit: Fit, teacher: Path) -> None:
    module = OmiADModule(
        str(teacher), student_warmup_fraction=0.0, adversarial_start_fraction=0.0, ema_fraction=0.5
    )
    snapshots = Snapshots()
    trainer = fit(module, 6, snapshots)
    assert trainer.global_step == 6  # two optimiser steps for each batch
    assert module.num_generator_steps == 3
    of_student, of_generator = (
        {name for name, p in before.items() if not torch.equal(p, after[name])}
        for before, after in pairwise(snapshots.taken[-3:])
    )
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
    assert not module.teacher.training
    assert all(p.requires_grad for p in module.student.parameters())
    assert not any(p.requires_grad for p in module.teacher.parameters())
    assert not any(p.requires_grad for p in module.detector.denoiser.parameters())


def test_the_checkpoint_of_a_generator_is_a_detector(
    student: tuple[OmiADModule, Path], generator: torch.Generator
) -> None:
    module, path = student
    loaded = Detector.load(path)
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator)
    expected, whole = module.detector(images), loaded(images)
    assert torch.equal(whole.score, expected.score)
    assert torch.equal(whole.anomaly_map, expected.anomaly_map)
    parts = torch.cat([loaded(images[:2]).score, loaded(images[2:]).score])
    torch.testing.assert_close(parts, whole.score, rtol=1e-5, atol=1e-6)
    assert torch.equal(loaded.map_range, module.detector.map_range)


def test_training_learns_and_finds_a_defect_never_shown(data: Data, fit: Fit) -> None:
    module, tiny = amdm(), data()
    fit(module, 120, datamodule=tiny)
    tiny.setup("test")
    scores, labels = [], []
    for batch in tiny.test_dataloader():
        scores.append(module.detector(batch.images).anomaly_map.amax((1, 2)))
        labels.append(batch.labels.is_anomalous)
    score, label = torch.cat(scores), torch.cat(labels)
    # A black square in stripes: the gap is several times the normals' spread.
    assert score[label].min() > score[~label].max()


def test_few_photographs_and_an_unusable_t_init_are_warned_about(
    fit: Fit, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="omiad"):
        fit(amdm(t_init=960))
    assert "'bottle' has 4 training photographs" in caplog.text
    assert "the signal is buried" in caplog.text
    assert re.search(r"--model\.t_init [45]\d\d gives", caplog.text)


def test_a_loss_that_is_no_number_stops_the_run(fit: Fit) -> None:
    module = amdm(optimizer=partial(torch.optim.SGD, lr=1e30), gradient_clip=1e30)
    with pytest.raises(InputError, match="The training loss became"):
        fit(module, 20)


@pytest.mark.parametrize(
    ("stage", "precision"), [("AMDM", "bf16-true"), ("OmiAD", "bf16-true"), ("OmiAD", "16-mixed")]
)
def test_a_precision_that_would_lose_small_steps_is_refused(
    data: Data, tmp_path: Path, teacher: Path, stage: str, precision: str
) -> None:
    trainer = trainer_of(tmp_path, 1)
    trainer.strategy.precision_plugin.precision = precision  # 16-mixed itself needs a GPU
    with pytest.raises(InputError, match=rf"--trainer\.precision {precision}"):
        trainer.fit(module_of(stage, teacher), datamodule=data())


@pytest.mark.parametrize(
    ("stage", "arguments", "message"),
    [
        ("AMDM", {"t_init": 1001}, r"t_init must lie in 1..1000"),
        ("AMDM", {"num_steps": 501}, r"num_steps must lie in 1..500"),
        ("OmiAD", {"t_init": 0}, r"t_init must lie in 1..1000, but got 0"),
        ("OmiAD", {"lambda_student_adv": 0.0}, "lambda_student_adv"),
    ],
)
def test_impossible_settings_are_refused(
    fit: Fit, teacher: Path, stage: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit(module_of(stage, teacher, **arguments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"omiad": None}, "not a checkpoint of omiad"),
        ({"format": 1}, "another checkpoint format"),
        ({"module": "OmiADModule"}, "OmiADModule wrote .* AMDMModule"),
    ],
)
def test_a_checkpoint_that_does_not_belong_to_the_model_is_not_resumed(
    data: Data, tmp_path: Path, teacher: Path, change: dict[str, object], message: str
) -> None:
    checkpoint = torch.load(teacher, weights_only=True)
    if "omiad" in change:
        del checkpoint["omiad"]
    else:
        checkpoint["omiad"] |= change
        seal(checkpoint)
    torch.save(checkpoint, tmp_path / "other.ckpt")
    trainer = trainer_of(tmp_path, 9)
    with pytest.raises(InputError, match=message):
        trainer.fit(amdm(), datamodule=data(), ckpt_path=tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("argument", "name"), [({"seed": 1}, "weights"), ({"feature_size": 4}, "feature_size")]
)
def test_another_backbone_than_the_teachers_is_refused(
    data: Data, fit: Fit, teacher: Path, argument: dict[str, int], name: str
) -> None:
    with pytest.raises(InputError, match=rf"the teacher was trained with.*--data\.{name}"):
        fit(OmiADModule(str(teacher)), datamodule=data(**argument))


def test_a_distilled_model_is_no_teacher(fit: Fit, tmp_path: Path, teacher: Path) -> None:
    checkpoint = torch.load(teacher, weights_only=True)
    checkpoint["omiad"]["detector"]["kind"] = "OmiAD"
    seal(checkpoint)
    torch.save(checkpoint, tmp_path / "student.ckpt")
    with pytest.raises(InputError, match="holds an OmiAD model"):
        fit(OmiADModule(str(tmp_path / "student.ckpt")))


def test_several_processes_look_for_the_network_that_a_step_leaves_out(
    fit: Fit, teacher: Path
) -> None:
    class Look(Callback):
        looks: object = None

        def on_train_start(self, trainer: Trainer, *_: object) -> None:
            self.looks = getattr(trainer.strategy.model, "find_unused_parameters", None)

    look = Look()
    try:
        fit(OmiADModule(str(teacher)), 1, look, strategy="ddp", devices=1)
        assert look.looks is True
    finally:
        torch.distributed.destroy_process_group()


def test_another_data_module_is_refused(fit: Fit) -> None:
    class Other(LightningDataModule):
        def train_dataloader(self) -> list[int]:
            return [1]

    with pytest.raises(InputError, match="AMDMModule needs a FeatureDataModule"):
        fit(amdm(), datamodule=Other())


@pytest.mark.parametrize("name", ["student_warmup_fraction", "adversarial_start_fraction"])
def test_a_share_of_the_run_above_one_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}.* 0..1.* 2"):
        OmiADModule("amdm.ckpt", **{name: 2.0})  # type: ignore[arg-type]


def test_a_run_without_an_end_is_refused(data: Data, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, -1, max_time="00:00:01:00")
    with pytest.raises(InputError, match=r"--trainer\.max_steps"):
        trainer.fit(amdm(), datamodule=data())
