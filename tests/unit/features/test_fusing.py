import torch
from torch import nn

from omiad.features import FeatureExtractor, weights_hash
from omiad.features.fusing import fused


def trained(seed=0):
    """An extractor whose batch norms have statistics that matter."""
    extractor = FeatureExtractor("test_efficientnet", weights="random", image_size=64)
    generator = torch.Generator().manual_seed(seed)
    for module in extractor.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            for x in (module.running_mean, module.bias):
                x.copy_(0.1 * torch.randn(x.shape, generator=generator))
            for x in (module.running_var, module.weight):
                x.copy_(0.5 + torch.rand(x.shape, generator=generator))
    return extractor


def norms(network):
    return [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]


def test_a_fused_backbone_has_no_batch_norm_and_gives_the_same_maps(generator):
    backbone = trained().backbone
    before = weights_hash(backbone)
    network = fused(backbone, 64)
    assert len(norms(backbone)) > 5
    assert not norms(network)
    image = torch.randn(1, 3, 64, 64, generator=generator)
    for ours, expected in zip(network(image), backbone(image), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert weights_hash(backbone) == before


class Shared(nn.Module):
    """A convolution whose output is used beside the batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(1.0)

    def forward(self, x):
        y = self.conv(x)
        return [self.norm(y) + y]


def test_a_backbone_that_would_compute_something_else_stays_as_it_is():
    backbone = Shared().eval()
    assert fused(backbone, 8) is backbone


def test_weights_that_change_change_the_features(generator):
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=generator)
    extractor, other = trained(), trained(seed=1)
    first, second = extractor(images), other(images)
    assert not torch.equal(first, second)
    extractor.load_state_dict(other.state_dict())
    assert torch.equal(extractor(images), second)


def test_the_copy_without_batch_norms_is_no_part_of_the_state(generator):
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=generator)
    extractor = trained()
    before, known = extractor.weights_hash, [*extractor.state_dict()]
    with torch.inference_mode():
        features = extractor(images)
    assert torch.equal(extractor(images), features)
    assert extractor.weights_hash == before
    assert [*extractor.state_dict()] == known
