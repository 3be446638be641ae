"""`omiad calibrate` and `omiad extend`: what a trained model learns later, without training."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from omiad.calibration import is_calibrated
from omiad.checkpoint import CHECKPOINT_KEY, read_checkpoint
from omiad.conformal import check_rate
from omiad.data import FeatureDataModule
from omiad.data.layouts import Layout
from omiad.detector import Detector
from omiad.devices import pick_device
from omiad.errors import InputError, MissingInputError
from omiad.files import expanded, new_file
from omiad.guarantee import guarantee_table
from omiad.learning import Positions, add_products, replace_products
from omiad.names import folded, one_line
from omiad.products import check_numbers
from omiad.runtimes import is_export
from omiad.terminal import console

logger = logging.getLogger(__name__)

CALIBRATION_SHARE = 0.3
"""Share of the photographs of a product that set its threshold, where it has enough."""


def calibrate(
    ckpt_path: str,
    photos: str,
    *,
    out: str | None = None,
    false_alarms: float | None = None,
    layout: Layout = "auto",
    device: str = "auto",
) -> Path:
    """Set the thresholds of products anew from fresh normal photographs, without training.

    Give photographs that the model has never seen: after a change of the lamp or the camera, or
    more of them for a lower rate of false alarms. The photographs also set how their products are
    recognised. Products without fresh photographs stay as they are. The command writes a new
    checkpoint and leaves the given one alone.

    Args:
        ckpt_path: Checkpoint of a model; one of `omiad fit` is given thresholds for the first time.
        photos: Folder of normal photographs: of one product, whose name the folder has, or with a
            folder for each product. Photographs of defects are left out.
        out: File to write; by default beside the checkpoint, as NAME.calibrated.ckpt.
        false_alarms: Share of normal photographs that may be called defective, such as 0.01, for
            all products. By default that of the model, which is 1 % or the lowest share that the
            photographs of a product support unless the model was given another.
        layout: Layout of the folder, as for `omiad fit`.
        device: cpu, cuda, mps, or auto for a GPU if there is one.

    Returns:
        The path of the new checkpoint.

    Raises:
        InputError: If the photographs show a product that the model does not know, are too few, or
            cannot be read; or if the new checkpoint exists.
    """
    detector = _loaded(ckpt_path, device, false_alarms)
    with _new_checkpoint(ckpt_path, out, "calibrated") as path:
        data = _photographs(photos, layout, detector)
        data.for_test = True  # training photographs may be missing
        splits = (data.samples("train"), data.samples("calibration"), data.samples("test"))
        fresh = [sample for sample in chain(*splits) if not sample.is_anomalous]
        counts = Counter(sample.category for sample in fresh)
        if not fresh:
            raise InputError(f"'{photos}' has no normal photographs. Give a folder that has some.")
        trained = read_checkpoint(ckpt_path)[CHECKPOINT_KEY]["categories"]
        known = detector.products.names or trained
        if unknown := sorted(counts.keys() - {*known}):
            raise InputError(
                f"'{photos}' shows {_listed(unknown)}, which the model does not know; it knows "
                f"{_listed(known)}. Give the folder the name of the product that it shows, or add "
                f"a product with `omiad extend`."
            )
        _check_numbers(detector, counts)
        batches = data.extraction.batches([sample.image for sample in fresh])
        shown = [sample.category for sample in fresh]
        replace_products(detector, (features for features, *_ in batches), shown)
        _save(detector, path, ckpt_path)
    return path


def extend(
    ckpt_path: str,
    photos: str,
    *,
    out: str | None = None,
    false_alarms: float | None = None,
    layout: Layout = "auto",
    device: str = "auto",
) -> Path:
    """Add a product to a trained model without training its network.

    The model remembers patches of the product's normal photographs, learns to recognise it, and
    sets its threshold by photographs that it does not remember: a share of them, or all in turns if
    there are fewer than 40. No score and no threshold of another product changes. The command
    writes a new checkpoint and leaves the given one alone.

    Args:
        ckpt_path: Checkpoint of a model that knows its products, as `omiad train` writes.
        photos: Folder of photographs of the new product, whose name the folder has, or with a
            folder for each new product. Test photographs are left out.
        out: File to write; by default beside the checkpoint, as NAME.extended.ckpt.
        false_alarms: Share of normal photographs that may be called defective, such as 0.01, for
            all products; by default that of the model.
        layout: Layout of the folder, as for `omiad fit`.
        device: cpu, cuda, mps, or auto for a GPU if there is one.

    Returns:
        The path of the new checkpoint.

    Raises:
        InputError: If the model knows the product already or was never calibrated, if the
            photographs are too few or cannot be read, or if the new checkpoint exists.
    """
    detector = _loaded(ckpt_path, device, false_alarms)
    with _new_checkpoint(ckpt_path, out, "extended") as path:
        if not detector.products.names:
            raise InputError(
                f"'{ckpt_path}' has no thresholds, so no product can be added. Use a model of "
                f"`omiad train`, or give it thresholds with `omiad calibrate`."
            )
        data = _photographs(photos, layout, detector)
        fitted = Counter(sample.category for sample in data.samples("train"))
        kept = Counter(sample.category for sample in data.samples("calibration"))
        known = {folded(name) for name in detector.products.names}
        if there := [name for name in data.categories if folded(name) in known]:
            raise InputError(
                f"The model knows {_listed(there)} already. Set thresholds anew with `omiad "
                f"calibrate`, or give a folder of new products alone."
            )
        _check_numbers(detector, {name: kept[name] or fitted[name] for name in fitted})
        add_products(detector, *normals(data))
        _save(detector, path, ckpt_path)
    return path


def normals(data: FeatureDataModule) -> tuple[Dataset[Tensor], Positions, Positions]:
    """Return features of the normal photographs of a data module, and where each product's are.

    Positions come in two parts: photographs to fit a model to, and those that are kept out.
    """
    train, kept = data.samples("train"), data.samples("calibration")
    fitted: dict[str, list[int]] = {name: [] for name in data.categories}
    held_out: dict[str, list[int]] = {name: [] for name in data.categories}
    for i, sample in enumerate(train):
        fitted[sample.category].append(i)
    for i, sample in enumerate(kept, start=len(train)):
        held_out[sample.category].append(i)
    features: Dataset[Tensor] = data.features("train")
    if len(kept):
        features = ConcatDataset([features, data.features("calibration")])
    return features, fitted, held_out


@contextmanager
def _new_checkpoint(ckpt_path: str, out: str | None, what: str) -> Iterator[Path]:
    """Claim the file to write, which must not exist."""
    path = Path(ckpt_path).with_suffix(f".{what}.ckpt") if out is None else Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, option="--out"):
        yield path


def _loaded(ckpt_path: str, device: str, false_alarms: float | None) -> Detector:
    """Load a model that is calibrated, and set its rate of false alarms if one is given."""
    if false_alarms is not None:
        check_rate(false_alarms)
    if is_export(ckpt_path):
        raise InputError(f"'{ckpt_path}' is an export, which learns nothing. Give the checkpoint.")
    detector = Detector.load(ckpt_path, device=pick_device(device))
    if not is_calibrated(detector):
        raise InputError(
            f"'{ckpt_path}' comes from the middle of a run and has no complete memory. Finish the "
            f"run with `omiad fit --ckpt_path {ckpt_path}`, and give its last checkpoint."
        )
    if false_alarms is not None:
        detector.false_alarms = false_alarms
    return detector


def _photographs(photos: str, layout: Layout, detector: Detector) -> FeatureDataModule:
    """Return the photographs in a folder, whose features are those of the detector."""
    if not expanded(photos).is_dir():
        raise MissingInputError(f"No folder '{photos}'. Give a folder of normal photographs.")
    data = FeatureDataModule(photos, layout=layout, calibration_share=CALIBRATION_SHARE)
    data.use_extractor(detector.extractor)
    return data


def _check_numbers(detector: Detector, num_normal: Mapping[str, int]) -> None:
    """Refuse too few photographs of a product, new or old, for the rate of false alarms."""
    products = detector.products
    pairs = zip(products.names, products.counts.tolist(), strict=True)
    others = {name: number for name, number in pairs if name not in num_normal}
    check_numbers({**num_normal, **others}, detector.false_alarms)


def _save(detector: Detector, path: Path, source: str) -> None:
    console().print(guarantee_table(detector.products, detector.false_alarms))
    detector.save(path, like=source)
    logger.info("model: %s", path)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{one_line(name)}'" for name in names)
