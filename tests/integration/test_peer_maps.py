"""Maps in the forms of the paper's nine systems are scored by the commands in the document."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from omiad.cli import main
from omiad.data.layouts import INDEXES
from omiad.data.masks import read_mask

SIZE = 32
TINY = f"--image_size={SIZE} --num_resamples=0"
SECTION = Path("tests/benchmarks/README.md").read_text().partition("systems keep their maps?\n")[2]
COMMANDS = dict(re.findall(r"^\| ([^,|]+), .* `omiad (evaluate .*)` \|$", SECTION, re.MULTILINE))


class Map(NamedTuple):
    """An image below the root, and its map (S, S), float64."""

    image: str
    scores: np.ndarray


def in_memory(axes: int) -> Callable[[Path, Map], None]:
    """Save a map as the section says, with that many axes."""

    def save(folder: Path, one: Map) -> None:
        target = folder / Path(one.image).with_suffix(".npy")
        target.parent.mkdir(parents=True, exist_ok=True)
        shape = (1,) * (axes - 2) + one.scores.shape
        np.save(target, np.asarray(one.scores.reshape(shape), np.float32))

    return save


def dumped(dtype: type, **more: np.ndarray) -> Callable[[Path, Map], None]:
    """Save a map as UniAD does, with other arrays beside it."""

    def save(folder: Path, one: Map) -> None:
        folder.mkdir(exist_ok=True)
        category, _, defect, name = Path(one.image).parts
        np.savez(
            folder / f"{category}_{defect}_{Path(name).stem}.npz",
            filename=one.image,
            pred=one.scores[None].astype(dtype),
            mask=np.zeros((1, SIZE, SIZE), np.float32),
            clsname=category,
            **more,
        )

    return save


SIZES = {"height": np.int64(900), "width": np.int64(900)}
FORMS = {
    "RD4AD": in_memory(2),
    "UniAD": dumped(np.float32, **SIZES),
    "SimpleNet": in_memory(2),
    "DeSTSeg": in_memory(3),
    "DiAD": dumped(np.float64),
    "HVQ-Trans": dumped(np.float32, **SIZES, pred_imgs=np.zeros((3, SIZE, SIZE), np.float32)),
    "ReContrast": in_memory(3),
    "DDAD": in_memory(3),
    "TransFusion": in_memory(2),
}


def test_every_system_has_a_command() -> None:
    assert set(COMMANDS) == set(FORMS)


@pytest.mark.parametrize("system", FORMS)
def test_a_system_that_finds_every_defect_gets_full_marks_by_its_command(
    system: str, mvtec_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(COMMANDS[system])
    given = dict(zip(words[1::2], words[2::2], strict=True))
    monkeypatch.chdir(tmp_path)
    Path(given["--data.root"]).symlink_to(mvtec_root)
    rows, rng = ["image,score"], np.random.default_rng(0)
    for sample in INDEXES["mvtec"](mvtec_root, for_test=True):
        if sample.split == "test":
            image, scores = sample.name(mvtec_root), 0.1 * rng.random((SIZE, SIZE))
            if sample.masks:
                scores += read_mask(sample.masks, SIZE, image=sample.image).numpy()
            FORMS[system](Path(given["--maps"]), Map(image, scores))
            rows.append(f"{image},{scores.max()}")
    if "--scores" in given:
        Path(given["--scores"]).write_text("\n".join(rows))
    main([*words, *TINY.split()])
    record = json.loads(Path(given["--output"]).read_text())
    assert record["mean"]["mad"] == 1  # maps of other images would cost pixel figures
