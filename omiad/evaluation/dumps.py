"""Maps as the code of UniAD saves them: an npz file for each image, which names its image inside.

HVQ-Trans and DiAD save them with the same function, `dump` in utils/eval_helper.py. The array
`filename` is the path of the image below the root of the data set, and `pred` is the map (1, H, W).
Other arrays, such as the mask, are not read.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omiad.arrays import array_names, read_array, read_text

_MEND = "Save the maps again with the code that wrote them, or each map alone as an npy file."


def is_dump(path: Path) -> bool:
    """Return whether a map file has this form."""
    return path.suffix.lower() == ".npz" and {"filename", "pred"} <= array_names(path)


def image_of(path: Path) -> str:
    """Return the image that such a file names inside.

    Raises:
        InputError: If the file is broken, or the name is no text.
    """
    return read_text(path, "filename", mend=_MEND).replace("\\", "/")


def read_pred(path: Path, *, largest: int) -> NDArray[Any]:
    """Read the map of such a file; float64, as DiAD saves it, is rounded to float32.

    Raises:
        InputError: If the file is broken, or the map has more bytes than the largest.
    """
    array = read_array(path, member="pred", largest=largest, mend=_MEND)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return array.astype(np.float32) if array.dtype == np.float64 else array
