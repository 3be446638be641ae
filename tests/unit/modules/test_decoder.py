"""The decoder in a run: what it learns, and that scores do not know of it."""

from functools import partial
from pathlib import Path

import pytest
import tiny
import torch

from omiad import Detector
from omiad.data.images import read_image
from omiad.modules import DecoderModule
from omiad.modules.decoder import psnr


@pytest.fixture(scope="module")
def detector(data: tiny.Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    return tiny.saved(tiny.fit(tiny.amdm(t_init=300), data(batch_size=8), folder, 30))


def test_the_ratio_is_in_decibels() -> None:
    assert psnr(torch.tensor(0.01)).item() == pytest.approx(20)
    assert psnr(torch.tensor(0.0)).item() == pytest.approx(100)


def test_it_learns_the_normal_images_and_leaves_the_detector_as_it_is(
    data: tiny.Data, fit: tiny.Fit, detector: Path
) -> None:
    module = DecoderModule(str(detector), partial(torch.optim.Adam, lr=3e-3), width=32)
    eight = data(batch_size=8)
    path = tiny.saved(fit(module, 80, datamodule=eight))
    before, after = Detector.load(detector), Detector.load(path)
    for name, value in before.state_dict().items():
        assert torch.equal(value, module.detector.state_dict()[name]), name
    images = torch.stack([read_image(s.image, 32) for s in eight.samples("train")])
    features, wanted = module.detector.extractor(images), images / 255
    flat = (wanted.mean((0, 2, 3), keepdim=True) - wanted).square().mean()
    for x_0 in (module.detector.normalizer(features), module.detector.reconstruct(features)):
        error = (module.decoder(x_0) - wanted).square().mean()
        # Over three seeds 0.058 of the variance was left at most, of either.
        assert error < 0.2 * flat
    # Scores are the detector's to the last bit, from its checkpoint or the decoder's.
    assert torch.equal(after(images).score, before(images).score)
    assert torch.equal(after.map_range, before.map_range)


def test_a_picture_is_of_the_reconstruction_and_not_of_the_photograph(
    fit: tiny.Fit, detector: Path
) -> None:
    module = DecoderModule(str(detector), width=16)
    path = tiny.saved(fit(module))
    image = read_image(module.data.samples("train")[0].image, 32)[None]
    features = module.detector.extractor(image)
    assert Detector.load(detector).picture(features) is None
    picture = Detector.load(path).picture(features)
    x_0 = module.detector.normalizer(features)
    reconstruction = module.detector.reconstruct(features)
    torch.testing.assert_close(
        (x_0 - reconstruction).norm(dim=1).mean(),
        Detector.load(detector)(image).anomaly_map.mean(),
        rtol=0.05,  # the map is resized to the image before its mean is taken
        atol=0,
    )
    expected = (module.decoder(reconstruction) * 255).round().to(torch.uint8)
    torch.testing.assert_close(picture, expected, rtol=0, atol=0)  # the data type included
