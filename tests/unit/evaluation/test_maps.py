"""Map files of any method: each kind is read as it is, and every fault is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omiad.errors import InputError, MissingInputError
from omiad.evaluation.maps import find_maps, read_map, read_scores

WHOLE = 20 * np.arange(12, dtype=np.float32).reshape(3, 4)
SCORES = WHOLE / 20 - 5


PICTURE = Image.fromarray(SCORES)


def tiff(path: Path, **options: object) -> None:
    PICTURE.save(path, "TIFF", **options)


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
        ("a.TIF", tiff, SCORES),
        ("a.png", lambda path: Image.fromarray(WHOLE.astype(np.uint8)).save(path), WHOLE),
        ("a.png", lambda path: Image.fromarray(WHOLE.astype(np.uint16)).save(path), WHOLE),
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
        ("a.npy", lambda path: np.save(path, SCORES.astype(float)), "holds float64"),
        ("a.npy", lambda path: np.save(path, SCORES.astype(complex)), "holds complex128"),
        ("a.npy", lambda path: np.save(path, np.full((2, 2), 2**24 + 1)), "float32 rounds"),
        ("a.npy", lambda path: np.save(path, SCORES / 0), "holds NaN or infinite"),
        ("a.npy", lambda path: np.save(path, SCORES[0]), r"has shape \(4,\)"),
        ("a.npy", lambda path: np.save(path, np.stack([SCORES] * 3)), r"shape \(3, 3, 4\)"),
        ("a.npz", lambda path: np.savez(path, a=SCORES, b=SCORES), "holds 2 arrays"),
        ("a.npz", lambda path: path.write_bytes(b"PK no archive"), "cannot be read"),
        ("a.npy", lambda path: path.write_bytes(b"nothing"), "cannot be read"),
        ("a.png", lambda path: path.write_bytes(b"nothing"), "cannot be read"),
        ("a.png", lambda path: Image.new("P", (4, 3)).save(path), "colours of a palette"),
        ("a.tiff", lambda path: tiff(path, save_all=True, append_images=[PICTURE]), "2 pages"),
        ("a.png", lambda path: Image.new("RGB", (4, 3)).save(path), r"has shape \(3, 4, 3\)"),
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


def test_maps_lie_at_the_path_of_their_images_and_results_may_lie_among_them(
    tmp_path: Path,
) -> None:
    maps = ["bolt/test/good/1.npy", "bolt/test/dent.old/2.TIFF"]
    write(tmp_path, *maps, "notes.txt", "first.json", "first.images.npz", "first.gallery.npz")
    assert find_maps(tmp_path, NAMES) == [tmp_path / name for name in maps]
    (tmp_path / "first.json").unlink()
    with pytest.raises(InputError, match=r"no image for 2: first\.gallery, first\.images"):
        find_maps(tmp_path, NAMES)


def test_every_misfit_is_named(tmp_path: Path) -> None:
    write(tmp_path, "bolt/test/good/1.npy", "bolt/test/good/1.png", "bolt/test/good/9.npy")
    with pytest.raises(InputError, match=str(tmp_path)) as error:
        find_maps(tmp_path, NAMES)
    sentence = str(error.value)
    assert "no map for 1: bolt/test/dent.old/2.png" in sentence
    assert "no image for 1: bolt/test/good/9" in sentence
    assert "bolt/test/good/1 (2 for bolt/test/good/1.png)" in sentence
    with pytest.raises(InputError, match=r"need maps such as '9\.jpg\.npy'.* no map for 2"):
        find_maps(tmp_path, ["bolt/test/good/9.png", "bolt/test/good/9.jpg"])
    with pytest.raises(InputError, match=r"no map for 30: .* and 10 more"):
        find_maps(tmp_path, [f"{i}.png" for i in range(30)])


def dump(path: Path, image: object, pred: object = SCORES[None], **more: object) -> None:
    np.savez(path, filename=image, pred=pred, **more)  # type: ignore[arg-type]


def test_a_map_that_names_its_image_inside_may_lie_anywhere(tmp_path: Path) -> None:
    dump(tmp_path / "b.npz", "bolt/test/good/1.png", mask=SCORES > 0, clsname="bolt")
    dump(tmp_path / "a.npz", "bolt\\test\\dent.old\\2.png", SCORES[None].astype(float))
    files = find_maps(tmp_path, NAMES)
    assert [file.name for file in files] == ["b.npz", "a.npz"]
    for file in files:
        np.testing.assert_array_equal(read_map(file), SCORES)
    alike = ["bolt/test/good/1.png", "bolt/test/good/1.jpg"]
    dump(tmp_path / "a.npz", alike[1])
    assert [file.name for file in find_maps(tmp_path, alike)] == ["b.npz", "a.npz"]


@pytest.mark.parametrize(
    ("image", "pred", "message"),
    [
        (1, SCORES, r"a.npz' cannot be read .its filename is int64 of shape \(\), not a text"),
        (NAMES[:1] * 2, SCORES, r"its filename is <U20 of shape \(2,\), not a text"),
        (np.array([0x110000], "<u4").view("<U1"), SCORES, "a.npz' cannot be read"),
        ("x" * 20_000, SCORES, "a.npz' cannot be read .* too large"),
        (np.array([None]), SCORES, "a.npz' cannot be read .it holds Python objects"),
        (NAMES[0], np.array([None]), "a.npz' cannot be read .it holds Python objects"),
        (NAMES[0], SCORES[0], r"a.npz' has shape \(4,\)"),
        (NAMES[0], SCORES.astype(float) * 1e300, "a.npz' holds NaN or infinite"),
        ("bolt/test/good/9.png", SCORES, "no map for 1: .*1.png; no image for 1: bolt/test/good/9"),
    ],
)
def test_a_broken_map_that_names_its_image_inside_is_refused(
    tmp_path: Path, image: object, pred: object, message: str
) -> None:
    dump(tmp_path / "a.npz", image, pred)
    with pytest.raises(InputError, match=message):
        read_map(*find_maps(tmp_path, NAMES[:1]))


def test_two_maps_that_name_one_image_are_refused(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        dump(tmp_path / name, NAMES[0])
    with pytest.raises(InputError, match=r"bolt/test/good/1 \(2 for"):
        find_maps(tmp_path, NAMES[:1])


def test_scores_belong_to_images_in_any_order_and_with_any_suffix(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    table.write_text(
        "image,score,more\r\nbolt/test/dent.old/2.jpg,1e-3,x\r\nbolt\\test\\good\\1.png,-7,y\r\n"
    )
    assert read_scores(table, NAMES).tolist() == [-7, 1e-3]


ONE = "bolt/test/good/1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,value\n", "columns image and score, but has image, value"),
        ("", "columns image and score, but has none"),
        ("image,score\n", f"no score for 1: {ONE}.png"),
        (f"image,score\n{ONE}.png,1\nx/3.png,1\n", "no image for 1: x/3"),
        (f"image,score\n{ONE}.png,1\n{ONE}.jpg,2\n", rf"{ONE} \(2 for"),
        (f"image,score\n{ONE}.png,high\n", f"no finite number for 1: {ONE}"),
        (f"image,score\n{ONE}.png,nan\n", f"no finite number for 1: {ONE}"),
        ("image,score\n,1\n", r"no image for 1: \."),
        ("score,image\n1\n", r"no image for 1: \."),
        ("image,score\n/,1\n", "no image for 1: /"),
        ("image,score\nbolt/é.png,1\n", r"scores\.csv' is not a CSV table in UTF-8"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scores.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read_scores(tmp_path / "scores.csv", NAMES[:1])


def test_missing_folders_and_tables_are_named() -> None:
    with pytest.raises(MissingInputError, match="'gone'"):
        find_maps(Path("gone"), NAMES)
    with pytest.raises(MissingInputError, match=r"'gone\.csv'"):
        read_scores(Path("gone.csv"), NAMES)
