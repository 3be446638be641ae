import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError, MissingInputError
from omiad.features import FeatureExtractor
from omiad.features.store import made_of

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])


def tiny(backbone: str = "test_efficientnet", **kwargs) -> FeatureExtractor:
    options = {"weights": "random", "image_size": 32, "feature_size": 4, **kwargs}
    return FeatureExtractor(backbone, **options)


@pytest.fixture
def images(generator):
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("backbone", "moments"),
    [("mobilenetv2_100", IMAGENET), ("test_resnet", HALF), ("test_convnext", HALF)],
)
@pytest.mark.parametrize("grid", ["uniad", "average"])
def test_features_are_the_stages_of_the_normalised_image_on_one_grid(
    images, backbone, moments, grid
):
    extractor = tiny(backbone, grid=grid)
    mean, std = [torch.tensor(value).view(3, 1, 1) for value in moments]
    maps = extractor.backbone((images / 255 - mean) / std)
    how = {"uniad": {"align_corners": True}, "average": {"antialias": True}}[grid]
    resized = [F.interpolate(x, (4, 4), mode="bilinear", **how) for x in maps]
    features = extractor(images)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, torch.cat(resized, 1), rtol=1e-3, atol=1e-4)
    assert extractor.channels_per_stage == [x.shape[1] for x in maps]
    assert extractor.num_channels == features.shape[1]


def test_the_grid_of_patchcore_averages_windows_with_zeros_beyond_the_border(images):
    extractor = tiny(grid="patchcore", stages=[1])
    (raw,) = extractor.backbone((images / 255 - extractor.mean) / extractor.std)
    assert raw.shape[-1] > 4  # it shrinks afterwards
    averaged = raw.clone()
    for y, x in np.ndindex(raw.shape[-2:]):
        inside = raw[..., max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        averaged[..., y, x] = inside.sum((-2, -1)) / 9
    expected = F.interpolate(averaged, (4, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(extractor(images), expected)


def test_channels_last_and_wrapped_backbones_give_the_same_layout(generator):
    images = torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8, generator=generator)
    vit = tiny("test_vit", stages=[1, 3], image_size=160, feature_size=10)
    (_, expected) = vit.backbone((images / 255 - vit.mean) / vit.std)
    torch.testing.assert_close(vit(images)[:, 64:], expected)
    metaformer = tiny("mambaout_femto", stages=[0])
    (expected,) = metaformer.backbone(torch.zeros(1, 3, 32, 32))
    assert metaformer._to_grid(expected, 0).shape == (1, metaformer.num_channels, 4, 4)


def test_stages_after_the_last_wanted_are_not_computed():
    all_stages, two = tiny(), tiny(stages=[0, 1])
    assert len(two.backbone.blocks) < len(all_stages.backbone.blocks)
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    torch.testing.assert_close(all_stages(images)[:, : two.num_channels], two(images))


def test_nothing_is_trainable_and_training_mode_changes_nothing(images):
    extractor = torch.nn.Sequential(tiny()).train()[0]
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())
    features = extractor(images)
    assert not features.requires_grad
    assert not features.is_inference()
    torch.testing.assert_close(features[:1], extractor(images[:1]))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_the_backbone_runs_in_the_precision_of_the_extractor_alone(images, precision, dtype):
    extractor, reference = tiny(precision=precision), tiny()
    seen = []
    extractor.backbone.bn1.register_forward_hook(lambda _, args, __: seen.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16 if dtype is None else None, enabled=dtype is None):
        features = extractor(images)
    assert {*seen} == {dtype or torch.float32}
    assert extractor.autocast_dtype == dtype
    assert features.dtype == torch.float32
    alone = torch.cat([extractor(image[None]) for image in images])
    assert torch.equal(extractor.features(images), alone.half())
    assert torch.equal(features, reference(images)) == (dtype is None)
    torch.testing.assert_close(features, reference(images), rtol=0.1, atol=0.1)


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    assert tiny(seed=1).weights_hash == tiny(seed=1).weights_hash != tiny(seed=2).weights_hash
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_vit"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_weights_file_of_the_whole_classifier_fills_the_backbone(tmp_path, backbone, suffix):
    classifier = timm.create_model(backbone)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": classifier.state_dict()}, path)
    else:
        save_file(classifier.state_dict(), path)
    extractor = tiny(backbone, weights=str(path), image_size=160, stages=[0, 1])
    stored = {key.replace(".", "_"): value for key, value in classifier.state_dict().items()}
    for key, value in extractor.backbone.state_dict().items():
        assert torch.equal(value, stored[key.removeprefix("model.").replace(".", "_")])


def test_a_checkpoint_of_omiad_holds_the_weights(tmp_path, images):
    module = torch.nn.ModuleDict({"detector": torch.nn.ModuleDict({"extractor": tiny(seed=3)})})
    torch.save({"state_dict": module.state_dict()}, tmp_path / "last.ckpt")
    extractor = tiny(weights=str(tmp_path / "last.ckpt"))
    original = module["detector"]["extractor"]
    assert extractor.weights_hash == original.weights_hash
    assert torch.equal(extractor(images), original(images))


def test_a_config_and_a_state_dict_rebuild_an_extractor(images):
    extractor = tiny(seed=3, grid="average", stages=(0, 2), precision="bfloat16")
    copied = FeatureExtractor(**extractor.config, weights="random")
    assert copied.weights_hash != extractor.weights_hash
    copied.load_state_dict(extractor.state_dict())
    assert copied.weights_hash == extractor.weights_hash
    assert copied.config == extractor.config
    assert torch.equal(copied(images), extractor(images))
    assert json.loads(json.dumps(extractor.config)) == extractor.config


def test_a_cache_distinguishes_all_that_changes_the_features():
    names = ("grid", "precision", "stages", "feature_size", "image_size", "seed")
    values = ("average", "bfloat16", [0, 1], 5, 48, 1)
    assert made_of(tiny()) == made_of(tiny())
    for name, value in zip(names, values, strict=True):
        assert made_of(tiny()) != made_of(tiny(**{name: value}))


def test_images_of_another_shape_or_dtype_are_refused():
    extractor = tiny()
    for shape in ((3, 32, 32), (1, 1, 32, 32), (1, 3, 32, 33)):
        with pytest.raises(InputError, match=r"\(B, 3, 32, 32\)"):
            extractor(torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(InputError, match="float32"):
        extractor(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        *(({name: 0}, r"sizes in 1\.\.\d") for name in ("image_size", "feature_size")),
        ({"stages": []}, "at least one stage"),
        ({"grid": "window"}, "grid must be one of .*'window'"),
        ({"precision": "16-mixed"}, "precision must be one of .*'16-mixed'"),
        ({"backbone": "resnet5O"}, "'resnet5O'.*resnet50"),
        ({"backbone": "test_resnet.no_such_tag", "stages": [0]}, "test_resnet.no_such_tag"),
        ({"backbone": "test_resnet", "stages": [0, 9]}, r"\[0, 9\] of backbone 'test_resnet'"),
    ],
)
def test_wrong_options_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        tiny(**options)


def test_pretrained_weights_without_network_suggest_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"could not be loaded \(.*--data.weights FILE"):
        tiny("test_resnet.r160_in1k", weights="pretrained")


@pytest.mark.parametrize("name", ["test_resnet", "test_resnet.r160_in1k"])
def test_a_folder_holds_the_weights_of_several_backbones(tmp_path, name):
    for backbone, seed in (("test_efficientnet", 1), ("test_resnet", 2)):
        model = tiny(backbone, seed=seed, stages=[0, 1])
        torch.save({"state_dict": model.backbone.state_dict()}, tmp_path / f"{backbone}.pth")
    extractor = tiny(name, weights=str(tmp_path), stages=[0, 1])
    assert extractor.weights_hash == tiny("test_resnet", seed=2, stages=[0, 1]).weights_hash
    with pytest.raises(MissingInputError, match="'test_vit'"):
        tiny("test_vit", weights=str(tmp_path), image_size=160)


def test_a_missing_weights_file_and_one_of_another_kind_are_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"nowhere\.pth"):
        tiny(weights=str(tmp_path / "nowhere.pth"))
    (tmp_path / "weights.txt").touch()
    with pytest.raises(InputError, match=r"weights\.txt"):
        tiny(weights=str(tmp_path / "weights.txt"))


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.ckpt", "code.pt"])
def test_an_unreadable_weights_file_is_named_and_pickled_code_is_never_loaded(tmp_path, name):
    (tmp_path / name).write_bytes(b"no weights")
    if name == "code.pt":
        torch.save(timm.create_model("test_efficientnet"), tmp_path / name)
    with pytest.raises(InputError, match=rf"The weights in '.*{name}' cannot be read"):
        tiny(weights=str(tmp_path / name))


def test_missing_weights_and_weights_of_another_shape_are_named(tmp_path):
    state = timm.create_model("test_efficientnet").state_dict()
    state["conv_stem.weight"] = state["conv_stem.weight"][:, :1].contiguous()
    del state["bn1.bias"]
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"bn1.bias is missing; conv_stem.weight differs\. Give"):
        tiny(weights=str(tmp_path / "a.safetensors"))
    save_file({"other": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"conv_stem.weight is missing; .* and \d+ more\. Give"):
        tiny(weights=str(tmp_path / "b.safetensors"))


@pytest.mark.parametrize(
    ("backbone", "size", "stages", "channels"),
    [
        # Strides 2, 4, 8, 16 of a convolutional network, 4, 8, 16 of one that starts there.
        ("tf_efficientnet_b4.aa_in1k", 32, [0, 1, 2, 3], [24, 32, 56, 160]),
        ("mobilenetv2_100", 32, [0, 1, 2, 3], [16, 24, 32, 96]),
        ("resnet18", 32, [0, 1, 2, 3], [64, 64, 128, 256]),
        ("resnet50", 32, [0, 1, 2, 3], [64, 256, 512, 1024]),
        ("convnext_atto", 32, [0, 1, 2], [40, 80, 160]),
        # Every third block of twelve, on images that are no multiple of 32.
        ("vit_small_patch14_dinov2", 28, [2, 5, 8, 11], [384] * 4),
        ("vit_tiny_patch16_224", 48, [2, 5, 8, 11], [192] * 4),
    ],
)
def test_default_stages_suit_the_kind_of_backbone(backbone, size, stages, channels):
    extractor = tiny(backbone, image_size=size)
    assert extractor.config["stages"] == stages
    assert extractor.channels_per_stage == channels
    features = extractor(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    assert features.shape == (1, sum(channels), 4, 4)


def test_positions_of_a_vits_weights_are_fitted_to_the_image_size(tmp_path):
    classifier = timm.create_model("test_vit")  # for images of 160 x 160: 10 x 10 patches
    save_file(classifier.state_dict(), tmp_path / "a.safetensors")
    vit = tiny("test_vit", weights=str(tmp_path / "a.safetensors"), image_size=80)
    positions = vit.backbone.model.pos_embed
    assert positions.shape == (1, 1 + 5 * 5, 64)
    stored = classifier.pos_embed[:, 1:].view(1, 10, 10, 64).permute(0, 3, 1, 2)
    expected = F.interpolate(stored, (5, 5), mode="bicubic", antialias=True)
    torch.testing.assert_close(positions[:, 1:], expected.flatten(2).transpose(1, 2))
    assert torch.equal(positions[:, :1], classifier.pos_embed[:, :1])


def test_published_weights_of_mobilenet_give_timms_own_feature_maps(pytestconfig, generator):
    folder = pytestconfig.getoption("--weights-dir")
    path = Path(folder or "no folder") / "mobilenetv2_100.safetensors"
    if not path.is_file():
        pytest.skip("no mobilenetv2_100.safetensors in --weights-dir (weights are not shipped)")
    extractor = FeatureExtractor("mobilenetv2_100", weights=str(path), image_size=64)
    reference = timm.create_model("mobilenetv2_100", checkpoint_path=path).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    x = (images / 255 - extractor.mean) / extractor.std
    with torch.no_grad():
        expected = reference.forward_intermediates(x, indices=[0, 1, 2, 3], intermediates_only=True)
        maps = extractor.backbone(x)
    for mine, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(mine, other)
    assert extractor.weights_hash != tiny("mobilenetv2_100").weights_hash
