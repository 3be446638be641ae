"""A checkpoint is data: it runs nothing, and damage or a wrong structure is one sentence."""

import logging
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from fuzz.kinds.checkpoints import save
from fuzz.mutations import copy_of, damaged, mutated, pick
from synthetic import write_mvtec

from omiad import AMDMModule, Detector, FeatureDataModule, OmiADModule
from omiad.checkpoint import read_checkpoint, seal
from omiad.cli import main
from omiad.errors import InputError, NotFiniteError
from omiad.modules import DetectionModule
from omiad.networks import registry
from omiad.settings import data_defaults, fit_defaults, run_settings

PWNED = {"class_path": "os.system", "init_args": {"command": "touch pwned"}}


@pytest.fixture(scope="module")
def good(data: tiny.Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = tiny.amdm(scoring=tiny.REMEMBERING)
    return tiny.saved(tiny.fit(module, data(), tmp_path_factory.mktemp("good"), 2))


@pytest.fixture
def changed(good: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the good checkpoint with a change, sealed again, into a run folder."""

    def write(change: Callable[[dict[str, Any]], object]) -> Path:
        checkpoint = torch.load(good, weights_only=True)
        change(checkpoint)
        seal(checkpoint)
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)
        return path

    return write


def resume(path: Path, data: tiny.Data, folder: Path) -> None:
    module = tiny.amdm(scoring=tiny.REMEMBERING)
    tiny.trainer_of(folder, 4).fit(module, datamodule=data(), ckpt_path=path)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder; a command that a checkpoint names would be noticed."""
    monkeypatch.chdir(tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("a checkpoint ran a command")

    monkeypatch.setattr(os, "system", refuse)


# Code -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["network", "optimizer", "scoring", "masking", "weighting"])
def test_a_class_in_the_settings_of_a_checkpoint_is_named_and_not_called(
    changed: Callable[..., Path], entry: str
) -> None:
    path = changed(lambda c: c["hyper_parameters"].update({entry: PWNED}))
    for command in (f"fit --ckpt_path={path}", f"fit --ckpt_path={path} --trainer.max_steps=9"):
        with pytest.raises(SystemExit):
            main(command.split())
    with pytest.raises(InputError, match=rf"os\.system|{entry}"):
        fit_defaults(str(path))


@pytest.mark.parametrize("where", ["_class_path", "_instantiator"])
def test_the_class_and_the_maker_of_a_module_are_not_imported(
    changed: Callable[..., Path], where: str
) -> None:
    path = changed(lambda c: c["hyper_parameters"].update({where: "evil_module.Module"}))
    (Path("evil_module.py")).write_text("raise AssertionError('imported')")
    if where == "_class_path":
        with pytest.raises(InputError, match=r"evil_module\.Module"):
            fit_defaults(str(path))
    else:
        assert "evil" not in str(fit_defaults(str(path)))
    for cls in (AMDMModule, DetectionModule, FeatureDataModule):
        with pytest.raises(InputError, match=f"{cls.__name__}.load_from_checkpoint"):
            cls.load_from_checkpoint(str(path))
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize("class_path", ["evil_network.Net", "os.system", "torch.nn.Linear", ""])
def test_a_foreign_network_needs_trust_wherever_its_checkpoint_is_read(
    changed: Callable[..., Path], data: tiny.Data, tmp_path: Path, class_path: str
) -> None:
    Path("evil_network.py").write_text("raise AssertionError('imported')")
    path = changed(lambda c: c["omiad"]["detector"]["network"].update(class_path=class_path))
    roads: list[Callable[[], object]] = [
        lambda: Detector.load(path),
        lambda: DetectionModule.load(str(path)),
        lambda: tiny.fit(OmiADModule(str(path)), data(), tmp_path, 1),
    ]
    for road in roads:
        with pytest.raises(InputError, match=f"'{class_path}'.*--trust"):
            road()


def test_a_trusted_network_is_imported_and_said(
    good: Path,
    changed: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Path("my_trusted_network.py").write_text(
        "from omiad.networks import UNet\nclass Net(UNet): pass\n"
    )
    monkeypatch.syspath_prepend(".")
    monkeypatch.setattr(registry, "NETWORKS", {**registry.NETWORKS})
    path = changed(
        lambda c: c["omiad"]["detector"]["network"].update(class_path="my_trusted_network.Net")
    )
    with pytest.raises(InputError, match=r"--trust my_trusted_network\.Net"):
        Detector.load(path)
    monkeypatch.setattr(logging.getLogger("omiad"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="omiad"):
        detector = Detector.load(path, trust="my_trusted_network.Net")
    assert "importing my_trusted_network.Net" in caplog.text
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert torch.equal(detector(images).score, Detector.load(good)(images).score)


def test_a_pickle_gets_our_own_sentence(tmp_path: Path, good: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return eval, ("__import__('pathlib').Path('pwned').touch()",)

    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps({"omiad": Payload()}))
    torch.save({"omiad": Payload()}, tmp_path / "zip.ckpt")
    torch.save({"omiad": Payload()}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for name in ("plain", "zip", "old"):
        with pytest.raises(InputError, match=f"{name}.ckpt' cannot be read") as error:
            read_checkpoint(tmp_path / f"{name}.ckpt")
        assert "weights_only" not in str(error.value)
    with pytest.raises(InputError, match=r"eval"):
        read_checkpoint(tmp_path / "zip.ckpt")


@pytest.mark.parametrize("name", ["hf-hub:evil/model", "local-dir:/tmp/x", "resnet18.a/../../b"])
def test_the_name_of_a_backbone_downloads_and_reads_nothing(
    changed: Callable[..., Path], name: str
) -> None:
    path = changed(lambda c: c["omiad"]["detector"]["extractor"].update(backbone=name))
    with pytest.raises(InputError, match="no backbone"):
        Detector.load(path)


def test_of_the_configuration_beside_a_checkpoint_only_plain_settings_are_taken(
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "trainer:\n  max_steps: 7\n  accelerator: cpu\n  num_nodes: 9\n"
        "  plugins: [{class_path: os.system}]\n  callbacks: {class_path: os.system}\n"
        "  logger: {class_path: os.system}\n"
        "  default_root_dir: /etc\ncheckpoint: {every_n_steps: 3}\nmodel: {class_path: os.system}\n"
    )
    assert run_settings(config) == {
        "trainer": {"max_steps": 7, "accelerator": "cpu"},
        "checkpoint": {"every_n_steps": 3},
    }
    config.write_text("trainer: {strategy: os.system}")
    with pytest.raises(InputError, match=r"trainer\.strategy"):
        run_settings(config)
    config.write_text("!!python/object/apply:os.system ['touch pwned']")
    with pytest.raises(InputError, match="not valid YAML"):
        run_settings(config)


def test_a_model_that_decides_is_no_run_that_a_fit_resumes(deciding: Path) -> None:
    with pytest.raises(InputError, match=r"model\.ckpt' is a model without .*last\.ckpt"):
        fit_defaults(str(deciding / "model.ckpt"))


# Damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_or_a_cut_is_noticed_or_changes_nothing(
    good: Path, tmp_path: Path, count: int
) -> None:
    content, rng = good.read_bytes(), np.random.default_rng(count)
    path, whole, noticed = tmp_path / "bad.ckpt", seal_of(good), 0
    for _ in range(count):
        path.write_bytes(damaged(content, rng))
        try:
            assert seal_of(path) == whole
        except InputError as error:
            assert "bad.ckpt'" in str(error)  # noqa: PT017
            noticed += 1
    assert noticed > 0.8 * count


def seal_of(path: Path) -> str:
    checkpoint = read_checkpoint(path)
    digest = checkpoint["omiad"]["digest"]
    seal(checkpoint)
    assert checkpoint["omiad"]["digest"] == digest
    return str(digest)


def test_damage_of_the_optimiser_is_noticed_by_a_resumed_run(
    good: Path, data: tiny.Data, tmp_path: Path
) -> None:
    checkpoint = torch.load(good, weights_only=True)
    checkpoint["optimizer_states"][0]["state"][0]["exp_avg"].view(-1)[0] += 1e-3
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(InputError, match=r"bad.ckpt' is damaged.*digest"):
        resume(tmp_path / "bad.ckpt", data, tmp_path)


# Structure ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_malformed_structure_is_one_sentence(
    good: Path, data: tiny.Data, tmp_path: Path, count: int
) -> None:
    checkpoint, rng = torch.load(good, weights_only=True), np.random.default_rng(count)
    path = tmp_path / "bad.ckpt"
    for number in range(count):
        section, bad = pick(rng, [*checkpoint]), copy_of(checkpoint)
        part = mutated({section: bad.pop(section)}, rng)
        save(bad | part, path)
        roads: list[Callable[[], object]] = [
            lambda: DetectionModule.load(str(path), weights="raw"),
            lambda: fit_defaults(str(path)),
            *([lambda: resume(path, data, tmp_path)] if number % 4 == 0 else []),
        ]
        for road in roads:
            try:
                road()
            except InputError as error:  # noqa: PERF203
                assert "\x1b" not in str(error), section  # noqa: PT017


def set_entry(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(checkpoint: dict[str, Any]) -> None:
        holder: Any = checkpoint
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("omiad", "detector", "extractor", "feature_size"), 10**9, "feature_size is 1000000000"),
        (("omiad", "detector", "num_noise_draws"), 10**6, "num_noise_draws"),
        (("omiad", "detector", "network", "init_args", "width"), 10**9, "width"),
        (("omiad", "detector", "network", "init_args", "num_blocks"), 9999, "num_blocks"),
        (("omiad", "detector", "network", "init_args", "other"), 1, "other"),
        (("omiad", "detector", "network", "init_args", "num_blocks"), 2, "weights"),
        (("omiad", "detector", "extractor", "backbone"), "vit_giant_patch14_224", " 'backbone"),
        (("omiad", "detector", "t_init"), "960", "t_init"),
        (("omiad", "detector", "unknown"), 1, "'unknown' in its DetectorSpec"),
        (("omiad", "detector", "extractor_weights_hash"), "0", "backbone's weights"),
        (("state_dict", "detector.map_range"), torch.zeros(3), "map_range"),
        (("state_dict", "detector.map_range"), torch.tensor([0, torch.nan]), "not finite"),
        (("state_dict", "detector.extra"), torch.zeros(3), "'extra'"),
        (("pytorch-lightning_version",), "0.0.1", "Lightning"),
        (("omiad", "format"), 2, "another checkpoint format"),
    ],
)
def test_an_entry_that_cannot_be_right_is_named_before_anything_is_built(
    changed: Callable[..., Path], keys: tuple[str, ...], value: object, named: str
) -> None:
    with pytest.raises(InputError, match=named):
        Detector.load(changed(set_entry(*keys, value=value)))


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("optimizer_states",), [], "optimizer_states"),
        (("optimizer_states", 0, "state", 0), {"step": torch.zeros(())}, "other entries"),
        (("optimizer_states", 0, "state", 0, "exp_avg"), torch.zeros(7), "another shape"),
        (("optimizer_states", 0, "state", 9999), {}, "9999"),
        (("optimizer_states", 0, "param_groups", 0, "params"), [0], "params"),
        (("optimizer_states", 0, "param_groups", 0, "lr"), -1.0, "lr is not a number"),
        (("optimizer_states", 0, "param_groups", 0), {"lr": 1e-3}, "has no betas"),
        (("lr_schedulers", 0), {"last_epoch": 2}, "has no _last_lr"),
        (("lr_schedulers", 0, "last_epoch"), "x", "last_epoch"),
        (("loops", "fit_loop", "epoch_progress"), None, "epoch_progress"),
        (("loops", "fit_loop", "epoch_progress", "current", "ready"), 0.5, "whole number"),
        (("loops", "fit_loop", "state_dict", "combined_loader"), [{"epoch": "x"}], "position"),
        (("omiad", "progress"), {}, "counts"),
        (("omiad", "categories"), ["bottle"], "'cable' was not in training"),
        (("omiad", "categories"), ["bottle", "cable", "nut"], "'nut' is missing"),
        (("state_dict", "denoiser.extra"), torch.zeros(1), "denoiser.extra"),
    ],
)
def test_a_state_that_no_run_could_continue_from_is_named_before_training(
    changed: Callable[..., Path],
    data: tiny.Data,
    tmp_path: Path,
    keys: tuple[Any, ...],
    value: object,
    named: str,
) -> None:
    with pytest.raises(InputError, match=named):
        resume(changed(set_entry(*keys, value=value)), data, tmp_path)


@pytest.mark.parametrize("write", [list, lambda x: [x, x]])
def test_data_that_refer_to_themselves_end_in_a_sentence(
    tmp_path: Path, write: Callable[..., list[Any]]
) -> None:
    loop: list[Any] = write([])
    if not loop:
        loop.append(loop)
    for _ in range(35):
        loop = write(loop)
    torch.save({"omiad": loop}, tmp_path / "deep.ckpt")
    with pytest.raises(InputError, match="refer to themselves"):
        read_checkpoint(tmp_path / "deep.ckpt")


# Scores, and what a checkpoint was trained on --------------------------------------------------


def test_a_score_that_is_not_finite_is_an_error_that_names_image_and_checkpoint(
    good: Path, data: tiny.Data, tmp_path: Path
) -> None:
    detector = Detector.load(good)
    features = torch.zeros(3, detector.extractor.num_channels, 8, 8)
    features[1, 0, 0, 0] = torch.inf
    with pytest.raises(NotFiniteError, match=rf"image 1.*{good.name}") as error:
        detector.score_features(features)
    assert error.value.index == 1
    detector.normalizer.std.zero_()
    module = DetectionModule(detector, ckpt_path=str(good))
    with pytest.raises(InputError, match=rf"\.png'.*{good.name}"):
        tiny.trainer_of(tmp_path, 1).test(module, datamodule=data())


def test_a_score_is_the_same_to_the_last_bit_from_test_and_python_whatever_the_batch(
    good: Path, data: tiny.Data, tmp_path: Path
) -> None:
    detector, module = Detector.load(good), DetectionModule.load(str(good))
    seen: list[torch.Tensor] = []
    step = module.test_step
    module.test_step = lambda *x: seen.append(step(*x).anomaly_map)  # type: ignore[method-assign]
    tiny.trainer_of(tmp_path, 1).test(module, datamodule=data())
    tested = torch.cat(seen)
    photographs = data().test_dataloader()
    images = torch.cat([batch.images for batch in photographs])
    for size in (1, 5, len(images)):
        maps = torch.cat([detector(part).anomaly_map for part in torch.split(images, size)])
        assert torch.equal(maps, tested)


def test_a_test_of_an_untrained_category_warns_by_name(
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_mvtec(tmp_path / "other", np.random.default_rng(0), categories=("bottle", "nut"))
    monkeypatch.setattr(logging.getLogger("omiad"), "propagate", True)
    module = DetectionModule.load(str(good))
    tiny.trainer_of(tmp_path, 1).test(module, datamodule=tiny.data_of(tmp_path / "other", tmp_path))
    assert "'nut' was not in training" in caplog.text
    assert "'bottle' was not" not in caplog.text


def test_the_root_of_a_run_is_found_from_another_folder(
    data: tiny.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mvtec(tmp_path / "parts", np.random.default_rng(0))
    module = tiny.amdm()
    path = tiny.saved(tiny.fit(module, tiny.data_of(Path("parts"), Path()), tmp_path, 1))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert data_defaults(str(path))["root"] == str(tmp_path / "parts")


@pytest.mark.parametrize("root", ["a\0b", "~nobody-of-this-name/x"])
@pytest.mark.parametrize("given", [True, False])
def test_a_root_that_can_be_no_folder_is_only_named(
    changed: Callable[..., Path],
    mvtec_root: Path,
    capsys: pytest.CaptureFixture[str],
    root: str,
    given: bool,
) -> None:
    path = changed(set_entry("datamodule_hyper_parameters", "root", value=root))
    other = [f"--data.root={mvtec_root}/gone"] if given else []
    with pytest.raises(SystemExit, match="2"):
        main(["test", f"--ckpt_path={path}", *other])
    assert ("gone'" if given else "No folder") in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".ckpt", ".safetensors"])
def test_a_file_of_backbone_weights_runs_nothing(tmp_path: Path, suffix: str) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return eval, ("__import__('pathlib').Path('pwned').touch()",)

    torch.save({"state_dict": Payload()}, tmp_path / f"weights{suffix}")
    with pytest.raises(InputError, match="cannot be read"):
        FeatureDataModule(
            str(tmp_path),
            backbone="test_efficientnet.r160_in1k",
            weights=str(tmp_path / f"weights{suffix}"),
        ).build_extractor(None)
