"""Photographs of every kind that Python knows to decisions: what a detector is used by."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast, overload

from torch import Tensor, nn

from omiad.conformal import check_rate
from omiad.features import FeatureExtractor
from omiad.inspection import Inspection, Judge
from omiad.photographs import Color, Photo, Reader, is_one
from omiad.products import Products


class Predictor(nn.Module, ABC):
    """A model that decides about photographs.

    Attributes:
        extractor: Its backbone, which knows how photographs are read.
        products: Products with the scores of their normal photographs.
        false_alarms: Rate of false alarms that thresholds are set for; see `Judge`.
        map_range: Values between which anomaly maps are drawn (2,).
    """

    extractor: FeatureExtractor
    map_range: Tensor
    products: Products
    false_alarms: float | None

    @overload
    def predict(
        self,
        photographs: Photo,
        *,
        color: Color = ...,
        category: str | None = ...,
        false_alarms: float | None = ...,
        batch_size: int = ...,
    ) -> Inspection: ...

    @overload
    def predict(
        self,
        photographs: list[Any] | tuple[Any, ...],
        *,
        color: Color = ...,
        category: str | None = ...,
        false_alarms: float | None = ...,
        batch_size: int = ...,
    ) -> list[Inspection]: ...

    @overload
    def predict(
        self,
        photographs: Iterator[Any],
        *,
        color: Color = ...,
        category: str | None = ...,
        false_alarms: float | None = ...,
        batch_size: int = ...,
    ) -> Iterator[Inspection]: ...

    def predict(
        self,
        photographs: Photo | list[Any] | tuple[Any, ...] | Iterator[Any],
        *,
        color: Color = "rgb",
        category: str | None = None,
        false_alarms: float | None = None,
        batch_size: int = 8,
    ) -> Inspection | list[Inspection] | Iterator[Inspection]:
        """Decide about one photograph or several of any sizes, as `omiad predict` does.

        A result is the same to the last bit, whatever form the photograph has and whatever else is
        in the batch. Pixels in memory are read like those of a file: 16-bit grayscale is scaled by
        the model's white level, and transparency is dropped.

        Args:
            photographs: A path, an image of Pillow, an array (H, W) or (H, W, C), a tensor (H, W),
                (C, H, W) or (H, W, C), or a list or generator of these. C is 1, 3 or 4. Arrays and
                tensors hold uint8, uint16, or floats in 0..1; a tensor that could have either
                order, such as (3, 8, 3), is (C, H, W). The EXIF orientation of files and images is
                applied.
            color: Order of the colours in arrays and tensors. OpenCV reads "bgr", which cannot be
                told from the pixels, so the colours would be wrong without a word. Files and images
                of Pillow know their order.
            category: The product that all photographs show; by default it is recognised.
            false_alarms: Share of normal photographs that may be called defective; by default the
                rate that the model was calibrated for.
            batch_size: Photographs that are read before they are scored together. The results of a
                generator come in groups of so many, so a camera takes 1.

        Returns:
            The result; a list of results for a list; or a generator of results for a generator,
            which holds one batch at a time.

        Raises:
            MissingInputError: If a file does not exist.
            InputError: If a photograph cannot be read or is of no such kind, a list is empty, the
                model does not know the product, or its photographs do not support the rate of
                false alarms.

        Examples:
            >>> from omiad import Detector
            >>> detector = Detector.load("model.ckpt")
            >>> result = detector.predict("photo.png")
            >>> result.decision, result.category
            ('ok', 'bolt')
            >>> good, bad = detector.predict(["photo.png", "hole.png"])
            >>> bad.decision, bad.score > bad.threshold.image
            ('defect', True)

            An image of Pillow, an array and a tensor give the same result.

            >>> import numpy, PIL.Image, torch
            >>> image = PIL.Image.open("photo.png")
            >>> array = numpy.array(image)
            >>> forms = [image, array, array / 255, torch.tensor(array)]
            >>> {each.score == result.score for each in detector.predict(forms)}
            {True}

            A generator is answered by a generator, and the frames of OpenCV are "bgr".

            >>> frames = (array[..., ::-1] for _ in range(1000))
            >>> next(detector.predict(frames, color="bgr", batch_size=1)).decision
            'ok'
        """
        extractor = self.extractor
        reader = Reader(
            *(extractor.image_size, batch_size, color),
            white_level=extractor.white_level,
            tiles=extractor.tiling.tiles,
        )
        is_single = is_one(photographs)
        given: Iterable[Any] = [photographs] if is_single else cast(Iterable[Any], photographs)
        self.judge(category, false_alarms)  # a generator would notice a mistake late
        results = (
            result
            for images, sizes in reader.batches(given)
            for result in self.inspect(
                images, sizes=sizes, category=category, false_alarms=false_alarms
            )
        )
        if is_single:
            return next(results)
        return results if isinstance(photographs, Iterator) else list(results)

    @abstractmethod
    def inspect(
        self,
        images: Tensor,
        *,
        sizes: Sequence[tuple[int, int]],
        category: str | None = None,
        false_alarms: float | None = None,
    ) -> list[Inspection]:
        """Decide about photographs in the form and at the size that the model takes."""

    def judge(self, category: str | None, false_alarms: float | None) -> Judge:
        """Return who decides.

        Raises:
            InputError: If the model does not know the product, or its photographs do not support
                the rate of false alarms.
        """
        if false_alarms is None:
            return Judge(self.products, self.false_alarms, category)
        check_rate(false_alarms)
        return Judge(self.products, false_alarms, category)
