"""Both stages on a tiny data set: who moves, who does not, and what a checkpoint holds."""

import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningDataModule, Trainer

from omiad import AMDMModule, Detector, FeatureDataModule, OmiADModule
from omiad.diffusion.sampling import one_step_reconstruct
from omiad.errors import InputError
from omiad.modules.randomness import SampleDraws
from omiad.networks import UNet
from omiad.scoring import Scoring

NETWORK = partial(UNet, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))


def data_of(root: Path, folder: Path, **arguments: object) -> FeatureDataModule:
    defaults: dict[str, object] = {"batch_size": 4, "feature_size": 8, "image_size": 32}
    return FeatureDataModule(
        str(root),
        backbone="test_efficientnet.r160_in1k",
        weights="random",
        cache_dir=str(folder / "cache"),
        **(defaults | arguments),  # type: ignore[arg-type]
    )


def trainer_of(folder: Path, max_steps: int, **arguments: object) -> Trainer:
    return Trainer(
        **arguments,  # type: ignore[arg-type]
        accelerator="cpu",
        max_steps=max_steps,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def amdm(**arguments: object) -> AMDMModule:
    defaults: dict[str, object] = {
        "feature_norm": "channel",
        "t_init": 500,
        "num_steps": 1,
        "scoring": Scoring(pool_size=4),
    }
    return AMDMModule(NETWORK, **(defaults | arguments))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def teacher(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    trainer = trainer_of(folder, 6)
    trainer.fit(amdm(), datamodule=data_of(mvtec_root, folder))
    trainer.save_checkpoint(folder / "amdm.ckpt")
    return folder / "amdm.ckpt"


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def distilled(
    root: Path, folder: Path, teacher: Path, max_steps: int, **arguments: object
) -> tuple[OmiADModule, Trainer]:
    module = OmiADModule(str(teacher), **arguments)  # type: ignore[arg-type]
    trainer = trainer_of(folder, max_steps)
    trainer.fit(module, datamodule=data_of(root, folder))
    return module, trainer


def test_stage_1_moves_the_network_and_its_average_alone(mvtec_root: Path, tmp_path: Path) -> None:
    module, data = amdm(), data_of(mvtec_root, tmp_path)
    data.setup("fit")
    backbone = weights(data.extractor)
    trainer_of(tmp_path, 3).fit(module, datamodule=data)
    fresh = amdm()
    trainer_of(tmp_path, 1).fit(fresh, datamodule=data_of(mvtec_root, tmp_path))
    assert not same(weights(module.trained), weights(fresh.trained))
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
        runs.append(weights(module.trained))
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


def test_a_test_scores_in_the_precision_of_the_checkpoint_as_predict_does(
    mvtec_root: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(tmp_path, 2, precision="bf16-mixed")
    trainer.fit(amdm(), datamodule=data_of(mvtec_root, tmp_path))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    module = amdm()
    trainer_of(tmp_path, 1).test(
        module,
        datamodule=data_of(mvtec_root, tmp_path),
        ckpt_path=str(tmp_path / "half.ckpt"),
        verbose=False,
    )
    predicting = Detector.load(tmp_path / "half.ckpt")
    assert module.detector.autocast_dtype == predicting.autocast_dtype == torch.bfloat16
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert torch.equal(module.detector(images).score, predicting(images).score)


def test_more_noise_draws_average_maps(mvtec_root: Path, tmp_path: Path, teacher: Path) -> None:
    one = Detector.load(teacher)
    two = Detector.from_spec(one.spec | {"num_noise_draws": 2})
    two.load_state_dict(one.state_dict())
    features = torch.zeros(1, one.extractor.num_channels, 8, 8)
    assert torch.equal(two.noise[0], one.noise[0])
    assert not torch.equal(two.score_features(features).score, one.score_features(features).score)


@pytest.mark.parametrize("arguments", [{"eta": 1.0}, {"sampler": "ddpm"}])
def test_a_stochastic_samplers_score_does_not_depend_on_the_batch(
    teacher: Path, arguments: dict[str, object], generator: torch.Generator
) -> None:
    trained = Detector.load(teacher)
    every_step = trained.spec | {"t_init": 6, "num_steps": 6}
    detector = Detector.from_spec(every_step | arguments)
    detector.load_state_dict(trained.state_dict())
    assert detector.spec == every_step | arguments
    features = torch.randn(3, trained.extractor.num_channels, 8, 8, generator=generator)
    whole = detector.score_features(features).score
    parts = torch.cat([detector.score_features(x).score for x in features.split(2)])
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    deterministic = Detector.from_spec(every_step)
    deterministic.load_state_dict(trained.state_dict())
    assert not torch.allclose(deterministic.score_features(features).score, whole)


@pytest.mark.parametrize("stage", ["AMDM", "OmiAD"])
def test_without_averaging_a_checkpoint_is_scored_by_its_raw_weights(
    mvtec_root: Path, tmp_path: Path, teacher: Path, stage: str
) -> None:
    path = teacher
    if stage == "OmiAD":
        _, trainer = distilled(mvtec_root, tmp_path, teacher, 6, student_warmup_fraction=0.0)
        path = tmp_path / "omiad.ckpt"
        trainer.save_checkpoint(path)
    tested = []
    for fraction in (0.05, 0.0):
        module = (
            amdm(ema_fraction=fraction)
            if stage == "AMDM"
            else OmiADModule(str(teacher), ema_fraction=fraction)
        )
        data = data_of(mvtec_root, tmp_path)
        trainer_of(tmp_path, 1).test(module, datamodule=data, ckpt_path=path, verbose=False)
        tested.append(module)
    averaged, raw = (weights(module.detector.denoiser) for module in tested)
    assert same(raw, weights(tested[1].trained))
    assert not same(raw, averaged)


@pytest.mark.parametrize(
    ("stage", "precision"), [("AMDM", "bf16-true"), ("OmiAD", "bf16-true"), ("OmiAD", "16-mixed")]
)
def test_a_precision_that_would_lose_small_steps_is_refused(
    mvtec_root: Path, tmp_path: Path, teacher: Path, stage: str, precision: str
) -> None:
    module = amdm() if stage == "AMDM" else OmiADModule(str(teacher))
    trainer = trainer_of(tmp_path, 1)
    trainer.strategy.precision_plugin.precision = precision  # 16-mixed itself needs a GPU
    with pytest.raises(
        InputError, match=rf"{stage} is trained in 32-true or bf16-mixed.* {precision}"
    ):
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
    module = AMDMModule(NETWORK, partial(torch.optim.SGD, lr=1e30), feature_norm="channel")
    module.gradient_clip = 1e30
    with pytest.raises(InputError, match=r"The training loss became .* Lower the learning rate"):
        trainer_of(tmp_path, 20).fit(module, datamodule=data_of(mvtec_root, tmp_path))


def test_a_checkpoint_of_another_program_is_not_restored(
    mvtec_root: Path, tmp_path: Path, teacher: Path
) -> None:
    foreign = torch.load(teacher, weights_only=True)
    del foreign["omiad"]
    torch.save(foreign, tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match="was not written by omiad"):
        trainer_of(tmp_path, 1).test(
            amdm(), datamodule=data_of(mvtec_root, tmp_path), ckpt_path=tmp_path / "foreign.ckpt"
        )


def test_a_checkpoint_of_the_other_stage_is_not_restored(
    mvtec_root: Path, tmp_path: Path, teacher: Path
) -> None:
    with pytest.raises(InputError, match="holds an AMDM model, but the configuration asks for"):
        trainer_of(tmp_path, 1).test(
            OmiADModule(str(teacher)), datamodule=data_of(mvtec_root, tmp_path), ckpt_path=teacher
        )


def test_other_backbone_weights_than_the_checkpoints_are_refused(
    mvtec_root: Path, tmp_path: Path, teacher: Path
) -> None:
    with pytest.raises(InputError, match="weights differ from the ones the checkpoint was trained"):
        trainer_of(tmp_path, 1).test(
            amdm(), datamodule=data_of(mvtec_root, tmp_path, seed=1), ckpt_path=teacher
        )


def test_a_t_init_of_zero_is_refused_and_not_replaced(
    mvtec_root: Path, tmp_path: Path, teacher: Path
) -> None:
    with pytest.raises(InputError, match=r"t_init must lie in 1..1000, but got 0"):
        distilled(mvtec_root, tmp_path, teacher, 1, t_init=0)


def test_a_generator_without_a_discriminator_to_fool_is_refused(teacher: Path) -> None:
    with pytest.raises(InputError, match="lambda_student_adv is 0 and trains none"):
        OmiADModule(str(teacher), lambda_student_adv=0.0)


def test_processes_that_would_wait_for_the_other_network_are_refused(
    mvtec_root: Path, tmp_path: Path, teacher: Path
) -> None:
    trainer = trainer_of(tmp_path, 1, strategy="ddp")
    trainer.datamodule = data_of(mvtec_root, tmp_path)  # type: ignore[attr-defined]
    module = OmiADModule(str(teacher))
    module.trainer = trainer
    with pytest.raises(InputError, match=r"--trainer\.strategy ddp_find_unused"):
        module.setup("fit")


@pytest.mark.parametrize("weighting", ["sid", "one"])
def test_the_adversarial_loss_has_gamma_one_under_unit_weighting(
    mvtec_root: Path, tmp_path: Path, teacher: Path, weighting: str
) -> None:
    module, _ = distilled(
        mvtec_root, tmp_path, teacher, 1, student_warmup_fraction=1.0, generator_weighting=weighting
    )
    logged: dict[str, torch.Tensor] = {}
    module.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[assignment]
    draws = SampleDraws(seed=0, epoch=0, index=torch.tensor([0, 1]), device=torch.device("cpu"))
    x_0 = draws.normal((module.detector.extractor.num_channels, 8, 8))
    x_g = module.reconstruct(module.generator, x_0, draws.normal(tuple(x_0.shape[1:])))
    loss = module.way.generator_loss(x_g, x_0, draws, adversarial=True)
    adversarial = loss - logged["train/distillation_loss"]
    plain = 0.01 * logged["train/generator_adversarial_loss"]
    assert torch.allclose(adversarial, plain, rtol=1e-3) == (weighting == "one")


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
        ({"sampler": "euler"}, "sampler must be one of ddim, ddpm, but got 'euler'"),
        ({"eta": 1.5}, r"eta must lie in 0..1, but got 1.5"),
    ],
)
def test_impossible_inference_settings_are_refused(
    mvtec_root: Path, tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        trainer_of(tmp_path, 1).fit(amdm(**arguments), datamodule=data_of(mvtec_root, tmp_path))
