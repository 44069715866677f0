"""An exported run answers as the run does, in programs that have no attent-kit."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch

from attent_kit.data.prepared.file import encode
from attent_kit.data.scans.volumes import read_volume
from attent_kit.data.space.intensity import Intensity
from attent_kit.data.space.slicing import Slicing
from attent_kit.engine.apply import export
from attent_kit.engine.apply.export import ExportOptions, answer_of, as_plain, export_run, write_model
from attent_kit.engine.apply.model import open_model
from attent_kit.errors import ConfigError, RunError
from attent_kit.files import sha256
from attent_kit.plugins import load
from support.cases import contents
from support.commands import says
from support.small_methods import ALIGNMENTS, batch, made
from support.stand_in import REGISTRY, whole_run

onnx = pytest.importorskip("onnxruntime", reason="pip install 'attent-kit[onnx]'")

FEW = ("source_only", "attent", "sifa")
CHOSEN = ALIGNMENTS if os.environ.get("ATTENTKIT_COMPLETE") else FEW
"""A method takes some seconds; `ATTENTKIT_COMPLETE=1` exports all of them."""


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
@pytest.mark.parametrize("name", CHOSEN)
def test_an_exported_method_gives_the_same_labels_for_any_number_of_slices(tmp_path, name, ending):
    alignment, _, _ = made(name)
    predict, x = as_plain(alignment, "logits", 64), batch(size=3).x_t
    write_model(tmp_path / f"m{ending}", predict, x[:2])
    with torch.no_grad():
        expected = predict(x)
    networks = {weight.partition(".")[0] for weight, _ in predict.alignment.named_parameters()}
    assert networks == ({"S", "G_ts"} if name in ("attent", "pixel") else {"S"})
    assert len(expected.argmax(1).unique()) > 1
    for count in (1, 3):
        found = torch.from_numpy(answer_of(tmp_path / f"m{ending}", x[:count].numpy()))
        assert torch.allclose(found, expected[:count], atol=1e-4)
        assert torch.equal(found.argmax(1), expected[:count].argmax(1))


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_run(trained, out, load().registry, ExportOptions(output="probabilities"))
    return out


def test_a_volume_goes_through_the_file_by_its_facts_alone_to_the_labels_of_predict(trained, exported, volumes):
    """What the JSON says is all that is used here of the run."""
    facts = json.loads(exported.with_suffix(".json").read_text())
    assert facts["file"]["sha256"] == sha256(exported)
    assert facts["input"]["shape"] == ["batch", 1, 32, 32] and facts["output"]["shape"] == ["batch", 5, 32, 32]
    assert facts["output"]["values"] == "probabilities" and facts["run"]["method"] == "source_only"
    before = facts["preprocessing"]
    volume = read_volume(volumes / "ct/images/ct_3.nii.gz")
    intensity = Intensity.from_dict(before["intensity"])
    slices, grid = encode(volume, Slicing.from_dict(before), intensity, "ct", facts["slices"]["channels"])
    session = onnx.InferenceSession(str(exported))
    (answer,) = session.run(["answer"], {"slices": slices.astype(np.float32)})
    assert np.allclose(answer.sum(1), 1, atol=1e-5)
    labels = grid.to_native(np.moveaxis(answer, 1, 0))
    kept = np.asarray(nib.load(trained / "predictions" / "ct_3.nii.gz").dataobj)
    assert kept.any() and np.array_equal(labels, kept)
    assert facts["labels"]["liver"] == 1


def test_the_command_writes_both_formats_and_never_over_what_is_there(attentkit, trained, tmp_path):
    for kind, name in (("onnx", "m.onnx"), ("torch-export", "n.pt2")):
        words = ["export", trained, tmp_path / name, "--format", kind]
        outcome = attentkit(*words, "--json")
        facts = (tmp_path / name).with_suffix(".json")
        assert outcome.code == 0 and json.loads(outcome.out) == [str(tmp_path / name), str(facts)]
        assert says(attentkit(*words), 2, f"{name} exists already")
    assert says(attentkit("export", trained, tmp_path / "m.pt2"), 2, "ends in .onnx")
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    one, two = (answer_of(tmp_path / name, x.numpy()) for name in ("m.onnx", "n.pt2"))
    assert np.allclose(one, two, atol=1e-4)


@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_answers_otherwise_is_not_left_behind_and_replaces_none(trained, tmp_path, monkeypatch, there):
    for name in ("m.pt2", "m.json") if there else ():
        (tmp_path / name).write_text("earlier")
    before = contents(tmp_path)
    really = export.answer_of
    monkeypatch.setattr(export, "answer_of", lambda path, x: really(path, x)[:, ::-1].copy())
    with pytest.raises(RunError, match="probabilities differ by up to"):
        export_run(trained, tmp_path / "m.pt2", load().registry, ExportOptions("torch-export", overwrite=there))
    assert contents(tmp_path) == before


def test_code_that_cannot_be_traced_is_a_sentence(trained, tmp_path, monkeypatch):
    method = load().registry.alignment("source_only")
    monkeypatch.setattr(method, "predict", lambda self, x: self.S(x if float(x.sum()) > 9 else -x).logits)
    with pytest.raises(ConfigError, match="'source_only' cannot be exported as torch-export") as refused:
        export_run(trained, tmp_path / "m.pt2", load().registry, ExportOptions("torch-export"))
    assert "\n" not in str(refused.value) and not list(tmp_path.glob("m.*"))


def test_without_onnx_the_command_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript: type pip install 'attent-kit\[onnx\]'"):
        export_run(whole_run(tmp_path / "run", 12), tmp_path / "m.onnx", REGISTRY)


# Without attent-kit at all

RECIPE = """
import json
import tomllib

import segmentation_models_pytorch as smp
from safetensors.torch import load_file

with open("config.toml", "rb") as file:
    options = tomllib.load(file)["alignment"]["segmentor"]
with open("domain.json") as file:
    domain = json.load(file)

network = smp.create_model(
    options["architecture"],
    encoder_name=options["encoder"],
    encoder_weights=None,
    in_channels=domain["channels"],
    classes=1 + len(domain["organs"]),
    **{name: options[name] for name in ("encoder_depth", "decoder_channels") if name in options},
)
weights = load_file("segmentor.safetensors")
network.load_state_dict({name[8:]: w for name, w in weights.items() if name.startswith("network.")})
network.eval()
"""
"""How `segmentor.safetensors` is loaded in plain segmentation_models_pytorch, in the folder of a run."""


def test_exported_weights_load_in_plain_smp(trained, volumes, tmp_path):
    volume = read_volume(volumes / "ct/images/ct_3.nii.gz")
    domain = open_model(trained, load().registry, "cpu").domain
    slices, grid = encode(volume, domain.slicing, domain.intensity, "ct")
    np.save(tmp_path / "x.npy", slices.astype(np.float32))
    program = (
        "import sys; sys.modules['attent_kit'] = sys.modules['attentkit_builtin'] = None\n"
        + RECIPE
        + "import numpy, torch\n"
        "with torch.no_grad(): answer = network(torch.from_numpy(numpy.load(sys.argv[1])))\n"
        "numpy.save(sys.argv[1], answer.softmax(1).numpy())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=trained)
    assert done.returncode == 0, done.stderr
    labels = grid.to_native(np.moveaxis(np.load(tmp_path / "x.npy"), 1, 0))
    assert np.array_equal(labels, np.asarray(nib.load(trained / "predictions" / "ct_3.nii.gz").dataobj))
