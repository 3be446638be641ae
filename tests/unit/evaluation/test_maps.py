"""Map files of any method: each kind is read as it is, and each fault is named with its path."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omiad.errors import InputError, MissingInputError
from omiad.evaluation.maps import find_maps, read_map, read_scores

SCORES = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def tiff(path: Path, **options: object) -> None:
    Image.fromarray(SCORES).save(path, **options)


def renamed(save: Callable[..., None], path: Path, suffix: str) -> None:
    save(path.with_suffix(suffix), SCORES)
    path.with_suffix(suffix).rename(path)


@pytest.mark.parametrize(
    ("name", "save", "expected"),
    [
        ("a.npy", lambda path: np.save(path, SCORES), SCORES),
        ("a.npy", lambda path: np.save(path, SCORES[None, :, :, None]), SCORES),
        ("a.npy", lambda path: np.save(path, SCORES.astype(np.float16)), SCORES),
        ("a.npz", lambda path: np.savez_compressed(path, scores=SCORES), SCORES),
        ("a.npy", lambda path: renamed(np.savez, path, ".npz"), SCORES),
        ("a.npz", lambda path: renamed(np.save, path, ".npy"), SCORES),
        ("a.tiff", tiff, SCORES),
        ("a.TIF", lambda path: Image.fromarray(SCORES).save(path, "TIFF"), SCORES),
        (
            "a.png",
            lambda path: Image.fromarray((SCORES + 5).astype(np.uint8)).save(path),
            SCORES + 5,
        ),
        (
            "a.png",
            lambda path: Image.fromarray((5000 * (SCORES + 5)).astype(np.uint16)).save(path),
            5000 * (SCORES + 5),
        ),
    ],
)
def test_scores_are_read_as_they_are(
    tmp_path: Path, name: str, save: Callable[[Path], None], expected: np.ndarray
) -> None:
    save(tmp_path / name)
    scores = read_map(tmp_path / name)
    assert scores.dtype == torch.float32
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        ("a.npy", lambda path: np.save(path, SCORES.astype(float)), "holds float64, but figures"),
        ("a.npy", lambda path: np.save(path, SCORES.astype(complex)), "holds complex128"),
        ("a.npy", lambda path: np.save(path, np.full((2, 2), 2**24 + 1)), "that float32 rounds"),
        ("a.npy", lambda path: np.save(path, SCORES / 0), "holds NaN or infinite"),
        ("a.npy", lambda path: np.save(path, SCORES[0]), r"has shape \(4,\)"),
        ("a.npy", lambda path: np.save(path, np.stack([SCORES] * 3)), r"shape \(3, 3, 4\)"),
        ("a.npz", lambda path: np.savez(path, a=SCORES, b=SCORES), "holds 2 arrays"),
        ("a.npz", lambda path: path.write_bytes(b"PK no archive"), "cannot be read as a map"),
        ("a.npy", lambda path: path.write_bytes(b"nothing"), "cannot be read as a map"),
        ("a.png", lambda path: path.write_bytes(b"nothing"), "cannot be read as a map"),
        ("a.png", lambda path: Image.new("P", (4, 3)).save(path), "colours of a palette"),
        ("a.png", lambda path: Image.new("1", (20000, 9000)).save(path), "decompression bomb"),
        (
            "a.tiff",
            lambda path: tiff(path, save_all=True, append_images=[Image.fromarray(SCORES)]),
            "holds 2 arrays",
        ),
        (
            "a.png",
            lambda path: Image.new("RGB", (4, 3)).save(path),
            r"has shape \(3, 4, 3\)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_file_that_holds_no_map_is_refused(
    tmp_path: Path, name: str, save: Callable[[Path], None], message: str
) -> None:
    save(tmp_path / name)
    with pytest.raises(InputError, match=message) as error:
        read_map(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


NAMES = ["bolt/test/good/1.png", "bolt/test/dent.old/2.png"]


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_maps_lie_at_their_images_path(tmp_path: Path) -> None:
    write(tmp_path, "bolt/test/good/1.npy", "bolt/test/dent.old/2.TIFF", "notes.txt")
    assert find_maps(tmp_path, NAMES) == [
        tmp_path / "bolt/test/good/1.npy",
        tmp_path / "bolt/test/dent.old/2.TIFF",
    ]


def test_results_may_lie_among_the_maps(tmp_path: Path) -> None:
    write(tmp_path, "bolt/1.npy", "first.json", "first.images.npz")
    assert find_maps(tmp_path, ["bolt/1.png"]) == [tmp_path / "bolt/1.npy"]
    (tmp_path / "first.json").unlink()
    with pytest.raises(InputError, match=r"no image for 1: .*first\.images\.npz"):
        find_maps(tmp_path, ["bolt/1.png"])


def test_every_misfit_is_named(tmp_path: Path) -> None:
    good = "bolt/test/good/1"
    write(tmp_path, f"{good}.npy", f"{good}.png", "bolt/test/good/9.npy")
    with pytest.raises(InputError, match="do not fit the test images") as error:
        find_maps(tmp_path, NAMES)
    sentence = str(error.value)
    assert "no map for 1: bolt/test/dent.old/2.png" in sentence
    assert f"no image for 1: {tmp_path / 'bolt/test/good/9.npy'}" in sentence
    assert f"{tmp_path / good}.npy and {tmp_path / good}.png" in sentence


def test_images_that_would_share_a_map_are_named(tmp_path: Path) -> None:
    write(tmp_path, "bolt/1.npy")
    with pytest.raises(InputError, match=r"bolt/1\.png and bolt/1\.jpg"):
        find_maps(tmp_path, ["bolt/1.png", "bolt/1.jpg"])


def test_a_long_list_of_faults_is_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no map for 30: .* and 10 more"):
        find_maps(tmp_path, [f"{i}.png" for i in range(30)])


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(MissingInputError, match="No folder 'gone'"):
        find_maps(Path("gone"), NAMES)


def test_scores_belong_to_images_whatever_the_suffix_and_order(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    table.write_text(
        "image,score,more\r\nbolt/test/dent.old/2.jpg,1e-3,x\r\nbolt\\test\\good\\1.png,-7,y\r\n"
    )
    torch.testing.assert_close(
        read_scores(table, NAMES), torch.tensor([-7, 1e-3], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,value\n", "needs the columns image and score, but has image, value"),
        ("image,score\nbolt/test/good/1.png,1\n", "no score for 1: bolt/test/dent.old/2.png"),
        ("image,score\nx/3.png,1\n", "no image for 1: x/3"),
        ("image,score\nbolt/test/good/1.png,1\nbolt/test/good/1.jpg,2\n", "more than one of 1"),
        ("image,score\nbolt/test/good/1.png,high\n", "no finite number for 1: bolt/test/good/1"),
        ("image,score\n,1\n", r"no image for 1: \."),
        ("score,image\n1\n", r"no image for 1: \."),
        ("image,score\n/,1\n", "no image for 1: /"),
        ("image,score\nbolt/test/good/1.png,nan\n", "no finite number for 1: bolt/test/good/1"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_scores(tmp_path / "scores.csv", NAMES)


def test_a_table_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_bytes("image,score\nbolt/é.png,1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"scores\.csv' is not a CSV table in UTF-8"):
        read_scores(tmp_path / "scores.csv", NAMES)


def test_a_missing_table_is_named() -> None:
    with pytest.raises(MissingInputError, match=r"No table 'gone\.csv'"):
        read_scores(Path("gone.csv"), NAMES)
