"""What the parser of the command line lets through is refused by name before anything is built."""

from functools import partial
from pathlib import Path

import pytest
from jsonargparse import dict_to_namespace
from lightning import Trainer

from omiad import AMDMModule, FeatureDataModule
from omiad.arguments import MOST_SHOWN, check_structure, cropped, refuse_nulls
from omiad.caching import build_cache
from omiad.cli import main
from omiad.errors import InputError
from omiad.settings import LARGEST_CONFIG, read_config

UNET = {"class_path": "omiad.networks.UNet", "init_args": {"width": None}}


@pytest.mark.parametrize(
    ("function", "given", "named"),
    [
        (FeatureDataModule, {"white_level": None}, "run.white_level"),
        (Trainer, {"max_steps": None}, "run.max_steps"),
        (AMDMModule, {"network": UNET}, "run.network.width"),
        (AMDMModule, {"seed": None}, "run.seed"),  # of a base class
        (AMDMModule, dict_to_namespace({"network": UNET}), "run.network.width"),
    ],
)
def test_an_argument_that_is_null_is_named(function, given, named):
    with pytest.raises(InputError, match=rf"{named} is null\. Give a value"):
        refuse_nulls(function, given, where="run")


def test_null_stays_what_a_parameter_may_be():
    refuse_nulls(FeatureDataModule, {"stages": None, "root": "x"}, where="data")
    refuse_nulls(Trainer, {"max_epochs": None}, where="trainer")
    refuse_nulls(partial, {"unknown": None, "x": {"class_path": "no.such"}}, where="x")
    refuse_nulls(Trainer, None, where="trainer")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ([], "x.yaml is a list"),
        ({"data": 0.5}, "x.yaml: data is a float"),
        ({"trainer": None}, "x.yaml: trainer is a NoneType"),
        ({"model": {"class_path": "y", "init_args": 5}}, "x.yaml: model.init_args is a int"),
    ],
)
def test_a_part_of_a_configuration_that_is_no_group_is_named(config, named):
    with pytest.raises(InputError, match=rf"{named}, not a group of entries"):
        check_structure(config, where="x.yaml")


def test_a_section_may_lie_in_a_file_and_a_class_has_no_arguments():
    check_structure(None, where="x.yaml")
    model = {"class_path": "y", "init_args": None}
    check_structure({"data": "data.yaml", "trainer": {}, "model": model}, where="x.yaml")


def test_the_message_of_a_library_is_cropped():
    assert cropped("short") == "short"
    assert cropped("x" * 10**6) == "x" * MOST_SHOWN + " [...]"


@pytest.mark.parametrize("command", ["fit", "cache build"])
def test_a_configuration_that_is_no_text_is_one_sentence(tmp_path: Path, capsys, command):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"data: {root: \xe1}")
    with pytest.raises(SystemExit, match="2"):
        main([*command.split(), f"--config={path}"])
    assert "mine.yaml' is not valid YAML: 'utf-8' codec" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_huge_configuration_is_not_parsed(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("x: " + "0" * LARGEST_CONFIG)
    with pytest.raises(InputError, match=r"mine\.yaml' has \d+ bytes"):
        read_config(path)


def test_a_null_in_a_file_is_one_sentence(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {root: x, white_level: null}")
    with pytest.raises(InputError, match=r"data\.white_level is null"):
        build_cache([f"--config={path}"])


def test_a_parser_says_what_is_wrong_without_a_page_of_options(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["fit", f"--{'x' * 10_000}=1"])
    said = capsys.readouterr().err
    assert said.startswith("omiad: error: unrecognized arguments: --xxx")
    assert said.endswith("`omiad fit --help` explains every option.\n")
    assert len(said) < MOST_SHOWN + 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("batch_size", 2**31), ("num_workers", -1), ("seed", 2**32)],
)
def test_a_number_out_of_range_is_named_with_its_range(name, value):
    with pytest.raises(InputError, match=rf"--data\.{name} must lie in \d\.\.\d+, but got {value}"):
        FeatureDataModule("x", **{name: value})


@pytest.mark.parametrize("name", ["image_size", "feature_size"])
def test_a_side_out_of_range_is_named_with_its_range(name):
    data = FeatureDataModule("x", weights="random", **{name: 2**63})
    with pytest.raises(InputError, match=rf"sizes in 1\.\.\d+ .* {name} {2**63}"):
        data.build_extractor(None)
