"""An export decides like its model, and is refused where it does not."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from omiad import Detector
from omiad.cli import main
from omiad.compilation import compile_detector
from omiad.errors import InputError, MissingInputError
from omiad.export import export
from omiad.export.blame import blamed
from omiad.export.comparison import compare, read_photographs, synthetic_photographs
from omiad.export.drafts import FORMS, draft_of, onnx_program
from omiad.export.graph import trace
from omiad.export.quantization import quantized
from omiad.learning import add_products
from omiad.prediction.photographs import find_photographs
from omiad.predictor import Predictor
from omiad.products import UNKNOWN
from omiad.runtimes import ExportedDetector, ExportPrecision
from omiad.runtimes.seal import sealed
from omiad.scoring import Scoring

DOCUMENT = Path(__file__).parents[3] / "omiad" / "export" / "README.md"

RUNTIMES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "openvino")}

ROUNDING = {"rtol": 1e-4, "atol": 1e-4}
"""A graph has the backbone's batch norms, which the model joins to convolutions."""


@pytest.fixture(scope="module", params=RUNTIMES)
def exported(request: pytest.FixtureRequest, deciding: Path, tmp_path_factory) -> Path:
    """The tiny model in each format whose packages are installed."""
    for module in RUNTIMES[request.param]:
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copy(deciding / "model.ckpt", folder)
    return export(str(folder / "model.ckpt"), format=request.param)


@pytest.fixture
def detector(deciding: Path) -> Detector:
    return Detector.load(deciding / "model.ckpt")


@pytest.fixture
def photographs(deciding: Path) -> list[str]:
    names = ("photo.png", "hole.png", "parts/nut/test/good/000.png")
    return [str(deciding / name) for name in names]


def check_alike(found: Predictor, expected: Predictor, photographs: list[str], **how: str) -> None:
    pairs = zip(
        found.predict(photographs, **how), expected.predict(photographs, **how), strict=True
    )
    for mine, theirs in pairs:
        assert (mine.decision, mine.category, mine.size) == (
            theirs.decision,
            theirs.category,
            theirs.size,
        )
        assert (mine.p_value, mine.threshold) == (theirs.p_value, theirs.threshold)
        assert mine.score == pytest.approx(theirs.score, rel=1e-4)
        np.testing.assert_allclose(mine.anomaly_map, theirs.anomaly_map, atol=1e-3)
        assert [region.box for region in mine.regions] == [region.box for region in theirs.regions]


@pytest.mark.slow
def test_a_graph_decides_about_any_number_of_photographs(
    detector: Detector, deciding: Path, tmp_path: Path, generator: torch.Generator
) -> None:
    path = export(str(deciding / "model.ckpt"), format="torch", out=str(tmp_path / "model.pt2"))
    files = {"omiad.json": ""}
    graph = torch.export.load(path, extra_files=files).module()
    assert [each["name"] for each in json.loads(files["omiad.json"])["products"]] == ["bolt", "nut"]
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=generator, dtype=torch.uint8)
    score, p_value, decision, product, maps = graph(images, torch.tensor([UNKNOWN, 1, 0]))
    for i, category in enumerate((None, "nut", "bolt")):
        expected = detector.assess_images(images[i : i + 1], category)
        verdict = detector.judge(None, None).verdict(expected.score, expected.shown)
        torch.testing.assert_close(score[i], expected.score[0], **ROUNDING)
        torch.testing.assert_close(maps[i], expected.anomaly_map[0], **ROUNDING)
        torch.testing.assert_close(p_value[i], verdict.p_value[0], equal_nan=True)
        assert (decision[i], product[i]) == (verdict.decision[0], expected.shown[0])
    with pytest.raises(InputError, match=r"torch\.export\.load; omiad runs \.onnx, \.xml"):
        Detector.load(path)


def test_a_graph_has_the_memory_of_each_product(deciding: Path, generator: torch.Generator) -> None:
    scoring = vars(Scoring(pool_size=4, memory_size=20, memory="product"))
    detector = Detector.load(deciding / "model.ckpt", scoring=scoring)
    memory, grid = detector.product_memory, detector.extractor.feature_size
    assert memory is not None
    shape = (4, detector.extractor.num_channels, grid, grid)
    normal = [torch.randn(shape, generator=generator) + mean for mean in (0, 1)]
    for name, x_0 in zip(("bolt", "nut"), normal, strict=True):
        memory.add(name, x_0, 0.1 * x_0, seed=0)
    memory.recognise_by([x_0.mean((2, 3)) for x_0 in normal])
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=generator, dtype=torch.uint8)
    score, *_ = trace(detector).module()(images, torch.tensor([UNKNOWN, 1, 0]))
    for i, category in enumerate((None, "nut", "bolt")):
        expected = detector.assess_images(images[i : i + 1], category).score[0]
        torch.testing.assert_close(score[i], expected, **ROUNDING)


@pytest.mark.slow
def test_a_graph_holds_added_products_and_several_steps(
    deciding: Path, generator: torch.Generator
) -> None:
    detector = Detector.load(deciding / "model.ckpt", num_steps=3)
    raw = torch.randn(8, detector.extractor.num_channels, 8, 8, generator=generator)
    add_products(detector, raw, {"pin": [*range(8)]}, {})
    assert detector.added.names == ["pin"]
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    score, *_ = trace(detector).module()(images, torch.tensor([2, 0]))
    expected = [
        detector.assess_images(images[i : i + 1], name) for i, name in enumerate(("pin", "bolt"))
    ]
    torch.testing.assert_close(score, torch.cat([each.score for each in expected]), **ROUNDING)


@pytest.mark.slow
def test_a_model_without_products_has_a_graph_without_decisions(detector: Detector) -> None:
    detector.forget_products()
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    _, p_value, decision, product, _ = trace(detector).module()(image, torch.tensor([UNKNOWN]))
    assert (p_value.isnan().item(), decision.item(), product.item()) == (True, 3, UNKNOWN)


def test_an_export_is_used_like_its_model(
    exported: Path, detector: Detector, photographs: list[str]
) -> None:
    found = Detector.load(exported)
    check_alike(found, detector, photographs)
    check_alike(found, detector, photographs, category="nut")
    check_alike(found, detector, photographs, false_alarms=0.2)
    one, whole = found.predict(photographs[1]), found.predict(photographs, batch_size=64)[1]
    assert one.score == whole.score
    with pytest.raises(InputError, match="no product 'screw'"):
        found.predict(photographs, category="screw")


def test_an_export_says_what_it_is(exported: Path, detector: Detector) -> None:
    found = Detector.load(exported)
    assert isinstance(found, ExportedDetector)
    record = found.record
    limits = detector.products.thresholds()
    assert [product["threshold"] for product in record["products"]] == [x.image for x in limits]
    assert record["protocol"]["extractor"] == detector.extractor.config
    assert len(record["weights_hash"]) == 64
    assert record["parity"] is not None
    assert record["parity"]["score"] < 1e-4


def test_the_program_in_the_document_decides_like_the_model(
    exported: Path,
    deciding: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if exported.suffix != ".onnx":
        pytest.skip("the program is for ONNX Runtime")
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for path in (exported, deciding / "photo.png", deciding / "hole.png"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    ok, defect = capsys.readouterr().out.splitlines()
    assert ok.startswith("photo.png ok bolt 0.")
    assert defect.startswith("hole.png defect bolt 1.")
    assert float(defect.split()[-1]) == 1 / 21


def test_the_command_predicts_with_an_export(
    exported: Path, deciding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = [str(deciding / "photo.png"), str(deciding / "hole.png")]
    main(["predict", str(exported), *photos, "--num_workers", "0"])
    rows = (tmp_path / "predictions" / "predictions.csv").read_text().splitlines()[1:]
    assert ["ok" in rows[0], "defect" in rows[1]] == [True, True]


def test_a_file_that_was_changed_is_refused(exported: Path, tmp_path: Path) -> None:
    for each in exported.parent.iterdir():
        shutil.copy(each, tmp_path)
    for path in (tmp_path / exported.name, tmp_path / "model.bin"):
        if path.exists():
            whole = path.read_bytes()
            damaged = bytearray(whole)
            damaged[len(whole) // 2] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"model\.\w+' is damaged.*export the model again"):
                Detector.load(tmp_path / exported.name)
            path.write_bytes(whole)
    copy = tmp_path / exported.name
    copy.write_bytes(copy.read_bytes()[:-100])
    with pytest.raises(InputError, match="no export of omiad, or its end is missing"):
        Detector.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2, "version": "9.9"}, r"exported by omiad 9\.9 in another format"),
        ({"map_range": "wide"}, r"map_range is 'wide'"),
        ({"image_size": 0}, "contradict each other"),
        (None, "its record is not JSON"),
    ],
)
def test_a_record_of_another_form_is_refused(
    exported: Path, tmp_path: Path, change: dict[str, object] | None, message: str
) -> None:
    record = dict(Detector.load(exported).record)  # type: ignore[attr-defined]
    text = "no" if change is None else json.dumps(record | change)
    check_refused(exported, tmp_path / exported.name, text, message)


def check_refused(exported: Path, copy: Path, record: str, message: str) -> None:
    """Write an export with another record, and expect a sentence when it is loaded."""
    beside = b""
    if exported.suffix == ".onnx":
        import onnx  # noqa: PLC0415

        model = onnx.load(exported)
        del model.metadata_props[:]
        model.metadata_props.add(key="omiad", value=record)
        content = model.SerializeToString()
    else:
        import openvino  # noqa: PLC0415

        model = openvino.Core().read_model(exported)
        model.set_rt_info(record, ["omiad"])
        openvino.save_model(model, copy, compress_to_fp16=False)
        content, beside = copy.read_bytes(), copy.with_suffix(".bin").read_bytes()
    copy.write_bytes(sealed(content, exported.suffix, beside=beside))
    with pytest.raises(InputError, match=message):
        Detector.load(copy)


def test_a_sealed_file_that_is_no_graph_is_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / exported.name
    path.with_suffix(".bin").write_bytes(b"")
    path.write_bytes(sealed(b"no graph", exported.suffix))
    with pytest.raises(InputError, match=r"cannot be opened .*Export the model again"):
        Detector.load(path)


def test_photographs_of_another_size_are_refused(exported: Path) -> None:
    found = ExportedDetector.load(exported)
    with pytest.raises(InputError, match=r"cannot be run .*32 x 32 pixels"):
        found.run(torch.zeros(1, 3, 40, 40, dtype=torch.uint8))


def test_a_missing_runtime_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "onnxruntime" if exported.suffix == ".onnx" else "openvino"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingInputError, match=rf"{module} is missing.*pip install {module}"):
        Detector.load(exported)


def test_what_an_export_cannot_do_is_a_sentence(exported: Path) -> None:
    with pytest.raises(InputError, match="num_steps cannot be changed"):
        Detector.load(exported, num_steps=3)
    with pytest.raises(InputError, match=r"is an export, and compiled already\. Leave out --comp"):
        compile_detector(Detector.load(exported), "default")
    with pytest.raises(InputError, match="CPU, not on 'cuda'"):
        Detector.load(exported, device="cuda")
    with pytest.raises(InputError, match="is an export already"):
        export(str(exported), out=str(exported.with_name("again.onnx")))
    with pytest.raises(MissingInputError, match=r"gone\.onnx"):
        Detector.load(exported.with_name("gone.onnx"))


@pytest.mark.slow
def test_a_graph_that_differs_is_noticed_and_its_operator_named(
    exported: Path, detector: Detector
) -> None:
    name = "onnx" if exported.suffix == ".onnx" else "openvino"
    draft = FORMS[name].draft(trace(detector), "float32", ())
    photographs = list(synthetic_photographs(detector))
    assert blamed(draft, photographs[0].pixels) is None
    model = draft.program.model_proto  # type: ignore[attr-defined]
    next(node for node in model.graph.node if node.op_type == "ReduceMax").op_type = "ReduceMin"
    if name == "openvino":
        import openvino  # noqa: PLC0415

        draft.model = openvino.Core().read_model(model.SerializeToString())  # type: ignore[attr-defined]
    else:
        draft.model = model  # type: ignore[attr-defined]
    found = compare(detector, draft.session().start("float32"), photographs, tolerance=1e-4)
    assert len(found.unlike) == found.compared
    assert "score is" in found.unlike[0].reason
    assert str(blamed(draft, photographs[0].pixels)).startswith("ReduceMin")


def test_an_operator_that_a_format_lacks_is_a_sentence(exported: Path) -> None:
    class Eigenvalues(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x)

    program = torch.export.export(Eigenvalues(), (torch.eye(3),))
    name = "onnx" if exported.suffix == ".onnx" else "openvino"
    with pytest.raises(
        InputError, match=rf"written for {name} \(.*aten\.linalg_eig.*another --format"
    ):
        draft_of(program, name, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_lower_precision_is_compared_by_photographs(
    exported: Path, deciding: Path, tmp_path: Path, precision: ExportPrecision
) -> None:
    name = "onnx" if exported.suffix == ".onnx" else "openvino"
    photos, out = [str(deciding / "parts" / "bolt" / "test")], tmp_path / exported.name
    model = str(deciding / "model.ckpt")
    export(model, format=name, precision=precision, photos=photos, out=str(out))  # type: ignore[arg-type]
    found = Detector.load(out)
    assert isinstance(found, ExportedDetector)
    assert found.record["precision"] == precision
    assert found.record["parity"] is not None
    assert 0 < found.record["parity"]["score"] < 0.1


@pytest.mark.slow
def test_only_the_network_is_quantized(exported: Path, detector: Detector) -> None:
    if exported.suffix != ".onnx":
        pytest.skip("OpenVINO reads the same graph")
    images = [each.pixels.numpy() for each in synthetic_photographs(detector)]
    whole = onnx_program(trace(detector), extra="onnx").model_proto
    found = quantized(whole, images)
    convolutions = [node for node in whole.graph.node if node.op_type == "Conv"]
    in_network = {
        node.name for node in convolutions if node.input[1].startswith("detector.denoiser.")
    }
    int8 = pytest.importorskip("onnx").TensorProto.INT8
    integers = {x.name for x in found.graph.initializer if x.data_type == int8}
    sources = {node.output[0]: node.input[0] for node in found.graph.node}
    in_int8 = {
        node.name
        for node in found.graph.node
        if node.op_type == "Conv" and sources.get(node.input[1]) in integers
    }
    assert in_int8 == in_network
    assert 0 < len(in_network) < len(convolutions)


def test_a_network_without_convolutions_is_not_quantized(exported: Path) -> None:
    if exported.suffix != ".onnx":
        pytest.skip("OpenVINO reads the same graph")
    program = torch.export.export(torch.nn.Conv2d(3, 3, 1), (torch.zeros(1, 3, 4, 4),))
    model = torch.onnx.export(program, (), dynamo=True, verbose=False).model_proto
    with pytest.raises(InputError, match=r"the network of this model has none\. Export in float32"):
        quantized(model, [])


@pytest.mark.slow
def test_half_precision_is_refused_where_a_decision_changes(
    detector: Detector, deciding: Path, tmp_path: Path
) -> None:
    for module in RUNTIMES["onnx"]:
        pytest.importorskip(module)
    detector.memory.patches.fill_(1e6)  # infinite in half precision
    detector.save(tmp_path / "large.ckpt", like=deciding / "model.ckpt")
    photos = [str(deciding / "parts" / "bolt" / "test")]
    with pytest.raises(InputError, match=r"differs from the model on .* Nothing was written"):
        export(str(tmp_path / "large.ckpt"), precision="float16", photos=photos)
    assert [path.name for path in tmp_path.iterdir()] == ["large.ckpt"]


def test_models_without_a_graph_are_refused(deciding: Path, detector: Detector) -> None:
    fresh = Detector.load(deciding / "model.ckpt", num_steps=3, eta=0.5)
    with pytest.raises(InputError, match=r"fresh noise in its 3 steps \(eta 0\.5\)"):
        trace(fresh)
    half = detector.extractor.config | {"precision": "bfloat16"}
    with pytest.raises(InputError, match=r"features in bfloat16.*--data\.precision float32"):
        trace(Detector.load(deciding / "model.ckpt", extractor=half))
    tiled = detector.extractor.config | {"tiles": [1, 2]}
    with pytest.raises(InputError, match=r"\[1, 2\] tiles.*without --data\.tiles"):
        trace(Detector.load(deciding / "model.ckpt", extractor=tiled))


def test_a_network_that_branches_on_values_is_refused(detector: Detector) -> None:
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    detector.denoiser.network = Branching()
    with pytest.raises(InputError, match="cannot be traced as a graph"):
        trace(detector)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "caffe"}, "--format must be one of onnx, openvino, torch, but got 'caffe'"),
        ({"precision": "bfloat16"}, "--format onnx takes --precision float32 or float16 or int8"),
        ({"precision": "float16"}, "Give --photos with the normal photographs"),
        ({"out": "model.xml"}, r"--out 'model\.xml' must end in \.onnx for --format onnx"),
        ({"out": "photo.onnx"}, r"'photo\.onnx' already exists"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, str],
    message: str,
    deciding: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.onnx").touch()
    with pytest.raises(InputError, match=message):
        export(str(deciding / "model.ckpt"), **options)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["photo.onnx"]


def test_photographs_to_compare_by_must_be_readable(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png' cannot be read"):
        list(read_photographs(detector, find_photographs([str(tmp_path)])))
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"gone\.png' is gone"):
        list(read_photographs(detector, find_photographs([str(tmp_path / "gone.png")])))
