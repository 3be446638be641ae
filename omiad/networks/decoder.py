"""A decoder from features to a picture for people to look at; no score depends on it."""

import math

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError


class FeatureDecoder(nn.Module):
    """Convolutions that double the grid until it nears the image size, then a resize.

    Each doubling halves the channels, down to 16. The last doubling is a pixel shuffle, because
    convolutions on the finest grid would cost more than all the others together. There is no
    normalisation: with statistics over the whole picture, the network learns to paint a bright
    spot that shifts them.

    Args:
        channels: Channels of the features.
        feature_size: Side of the feature grid in cells.
        image_size: Side of the image in pixels.
        width: Channels of the first layer, on the feature grid.
    """

    def __init__(
        self, channels: int, *, feature_size: int, image_size: int, width: int = 128
    ) -> None:
        super().__init__()
        if min(channels, feature_size, width) < 1 or image_size < feature_size:
            raise InputError(
                f"A decoder needs positive sizes and an image_size of at least feature_size, but "
                f"got channels {channels}, feature_size {feature_size}, image_size {image_size} "
                f"and width {width}."
            )
        self.image_size = image_size
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
        doublings = int(math.log2(image_size / feature_size))
        for _ in range(doublings - 1):
            narrow = max(16, width // 2)
            layers += [_block(width), nn.Upsample(scale_factor=2.0, mode="nearest")]
            layers += [nn.Conv2d(width, narrow, 3, padding=1)]
            width = narrow
        self.layers = nn.Sequential(*layers, _block(width))
        last = 2 if doublings else 1
        self.out = nn.Sequential(nn.Conv2d(width, 3 * last**2, 3, padding=1), nn.PixelShuffle(last))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # with torch's default the signal fades with depth
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """Map normalised features (B, C, h, w) to RGB in [0, 1], (B, 3, S, S), float32."""
        pixels = self.out(self.layers(features)).float()
        size = (self.image_size, self.image_size)
        return F.interpolate(pixels, size, mode="bilinear", align_corners=False).sigmoid()


def _block(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU())
