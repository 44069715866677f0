"""`attentkit backbones`: what it says of each backbone is what building it does; a cache is a convenience and no duty."""

import json
import subprocess
import sys

import pytest
from huggingface_hub import constants

from attent_kit.engine.backbones import backbones as module
from attent_kit.engine.backbones.backbones import Memory, find, lies_here
from attent_kit.errors import ConfigError
from attent_kit.plugins import load
from attentkit_builtin.segmentors import smp_backbones
from attentkit_builtin.segmentors.smp import SmpSegmentor
from support.messages import quotes

STRANGER = '''
import torch
from attent_kit import hookimpl
from attent_kit.backbone import Backbone
from attent_kit.config import Choice, ComponentConfig
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Alignment, Segmentation, Segmentor

class Two(Segmentor):
    """Two networks."""
    feature_channels, feature_stride = 6, 2
    asked = []
    @classmethod
    def backbones(cls):
        return "coarse_net", "fine_net", "bad_net"
    @classmethod
    def backbone(cls, name):
        cls.asked.append(name)
        if name == "bad_net":
            raise KeyError("weights")
        stride = 16 if name == "coarse_net" else 2
        return Backbone(options={"net": name}, parameters=1000 * stride, strides=(stride,), channels=(6,))
    def forward(self, x):
        return Segmentation(x, x)

class One(Segmentor):
    """One network."""
    def __init__(self, config, task):
        super().__init__(config, task)
        self.feature_channels, self.feature_stride, self.has_auxiliary = 3, 4, True
        self.layer = torch.nn.Conv2d(1, 3, 3)
    def forward(self, x):
        return Segmentation(x, x)

class Fine(Alignment):
    """Wants fine features and two heads."""
    class Config(ComponentConfig):
        net: Choice[Segmentor] = Choice("two")
        """Network."""
    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.S = build(config.net)
        if self.S.feature_stride > 4:
            raise ConfigError(f"features at 1/{self.S.feature_stride} are too coarse.")
    def optimizers(self): return {}
    def stages(self): return []
    def predict(self, x_t): return x_t

class Wild(Fine):
    """Raises what nobody foresees."""
    def __init__(self, config, build, task):
        raise ValueError("oh")

class Own(Fine):
    """Has its own network."""
    class Config(ComponentConfig):
        pass

@hookimpl
def attentkit_segmentors():
    return {"two": Two, "one": One, "broken": "no_such_module_here:Broken"}

@hookimpl
def attentkit_alignments():
    return {"fine": Fine, "own": Own, "wild": Wild}
'''


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "attent-kit" / "backbones.json"


@pytest.fixture
def stranger(install, found):
    """A plugin alone, and the classes in it."""
    found(install("nets", STRANGER), only="nets")
    return load().registry


def listed(attentkit, *words):
    outcome = attentkit("backbones", *words, "--json")
    assert outcome.code == 0, outcome.err
    return {each["name"]: each for each in json.loads(outcome.out)}


# What is said


def test_a_residual_network_is_described_by_its_published_numbers():
    """ResNet-18 has 11,689,512 parameters (torchvision), 513,000 of them in its head; one channel spares 2 x 64 x 49."""
    for name in ("resnet18", "tu-resnet18"):
        known = smp_backbones.describe(name)
        assert known.parameters == 11_689_512 - 513_000 - 2 * 64 * 49
        assert (known.strides, known.channels) == ((2, 4, 8, 16, 32), (64, 64, 128, 256, 512))
        assert known.fits == "all but dpt" and known.refused == "" and known.options == {"encoder": name}
    assert known.weights["tu-resnet18.a1_in1k"] == "hf://timm/resnet18.a1_in1k/model.safetensors"


def test_an_encoder_without_a_map_at_half_resolution_says_so():
    known = smp_backbones.describe("tu-convnext_atto")
    assert (known.strides, known.channels) == ((4, 8, 16, 32), (40, 80, 160, 320))
    assert known.note.startswith("no map at 1/2 ")


def test_a_plain_transformer_is_flagged_with_the_reason_and_where_it_fits(attentkit):
    known = listed(attentkit, "tu-vit_tiny_patch16_224")["tu-vit_tiny_patch16_224"]
    assert known["strides"] == [16] and known["fits"] == "dpt"
    assert "one resolution only" in known["note"] and "architecture = 'dpt'" in known["note"]
    assert known["options"] == {"encoder": "tu-vit_tiny_patch16_224", "architecture": "dpt"}


def test_an_encoder_that_nothing_takes_is_refused_with_a_neighbour(attentkit):
    outcome = attentkit("backbones", "tu-coat_tiny")
    assert outcome.code == 0
    assert "tu-coat_tiny cannot be used: " in outcome.out and "images of one size only" in outcome.out
    assert "Write encoder = 'resnet18', which can." in " ".join(outcome.out.split())
    assert listed(attentkit, "tu-coat_tiny")["tu-coat_tiny"]["alignments"] == []


def test_an_architecture_says_how_it_uses_the_encoder(attentkit):
    known = listed(attentkit, "deeplabv3")
    assert known["deeplabv3"]["part"] == "architecture" and known["deeplabv3"]["strides"] == [8]
    assert "dilates the encoder to 1/8" in known["deeplabv3"]["note"]
    assert "cannot be trained on single images" in known["deeplabv3"]["note"]


def test_every_alignment_that_ships_says_whether_it_takes_a_backbone(attentkit):
    uses = {use["alignment"]: use for use in listed(attentkit, "tu-test_resnet")["tu-test_resnet"]["alignments"]}
    assert set(uses) == {component.name for component in load().registry.of("alignments")}
    assert all(use["refused"] == "" for use in uses.values())
    # SIFA v2, its default, needs a second head; the others do without.
    assert {name: use["options"] for name, use in uses.items() if use["options"]} == {"sifa": {"auxiliary": 4}}


def test_a_segmentor_that_is_one_network_is_a_line_of_its_own(attentkit):
    known = listed(attentkit, "deeplabv2")["deeplabv2"]
    assert (known["part"], known["strides"], known["channels"], known["auxiliary"]) == ("segmentor", [8], [2048], {})
    assert all(use["refused"] == "" and use["options"] == {} for use in known["alignments"])


def test_everything_that_smp_and_timm_have_is_named():
    names = smp_backbones.names()
    assert len(names) == len(set(names)) > 1000
    assert {"unet", "dpt", "resnet18", "mit_b0", "tu-convnext_tiny", "tu-vit_tiny_patch16_224"} <= set(names)


def test_few_parameters_can_be_asked_for(attentkit):
    sizes = {name: known["parameters"] for name, known in listed(attentkit, "tu-test_res*").items()}
    largest = max(sizes.values())
    assert set(listed(attentkit, "tu-test_res*", "--max-params", f"{largest / 1000}k")) == set(sizes)
    fewer = listed(attentkit, "tu-test_res*", "--max-params", str(largest - 1))
    assert set(fewer) == {name for name, size in sizes.items() if size < largest}
    assert attentkit("backbones", "tu-test_res*", "--max-params", "1k").out.count(" 1k parameters") == 1
    outcome = attentkit("backbones", "--max-params", "few")
    assert outcome.code == 2 and "--max-params few" in outcome.err and "30M" in outcome.err


def test_a_typo_is_answered_with_few_names(attentkit):
    outcome = attentkit("backbones", "resnt18")
    assert outcome.code == 2
    assert quotes(outcome.err, "'resnt18' ... 'resnet18' or 'tu-resnet18'")
    assert len(outcome.err) < 250


# Strangers


def test_a_strangers_segmentor_answers_and_a_strangers_alignment_is_asked(stranger, attentkit):
    known = listed(attentkit)
    assert {name: each["part"] for name, each in known.items()} == {
        "coarse_net": "encoder", "fine_net": "encoder", "bad_net": "encoder", "one": "segmentor", "broken": "segmentor",
    }  # fmt: skip
    assert known["one"]["parameters"] == 3 * 9 + 3
    uses = {name: {use["alignment"]: use["refused"] for use in each["alignments"]} for name, each in known.items()}
    assert uses["fine_net"]["fine"] == uses["one"]["fine"] == ""
    assert uses["coarse_net"]["fine"] == "features at 1/16 are too coarse."
    assert {each["own"] for each in uses.values() if each} == {"it has a network of its own"}
    assert uses["one"]["wild"].startswith("wild of attentkit-nets fails (ValueError: oh)")
    text = attentkit("backbones").out
    assert "all but own, wild" in text and "Refused by fine: features at 1/16 " in text


def test_a_strangers_segmentor_that_fails_is_a_line_that_says_so(stranger, attentkit):
    known = listed(attentkit)
    assert "two of attentkit-nets fails (KeyError: 'weights')" in known["bad_net"]["refused"]
    assert "'broken' of attentkit-nets 1.0 " in known["broken"]["refused"]


# The cache


def test_what_was_answered_is_not_asked_again(stranger, cache):
    two = stranger.segmentor("two")
    first = find(stranger)
    assert two.asked == ["coarse_net", "fine_net", "bad_net"] and cache.exists()
    two.asked.clear()
    assert find(stranger) == first and two.asked == []


def test_another_version_of_a_package_is_asked_again(stranger, monkeypatch):
    two = stranger.segmentor("two")
    find(stranger, "fine_net")
    monkeypatch.setattr(module, "installed_version", lambda distribution: "another")
    find(stranger, "fine_net")
    assert two.asked == ["fine_net", "fine_net"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"fingerprint": "x"}', "whole"])
def test_a_damaged_cache_is_as_good_as_none(stranger, cache, damage):
    first = find(stranger)
    kept = cache.read_text()
    cache.write_text(kept.replace('"parameters": 2000', '"parameters": "many"') if damage == "whole" else damage)
    assert find(stranger) == first
    assert json.loads(cache.read_text()) == json.loads(kept)


def test_a_cache_that_cannot_be_written_is_no_error(stranger, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [each.name for each in find(stranger)] == ["coarse_net", "fine_net", "bad_net", "one", "broken"]


def test_a_remembered_answer_needs_no_torch(attentkit):
    listed(attentkit, "tu-test_resnet")
    program = (
        "import sys, json, io, contextlib; from attent_kit.cli import run\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out: code = run(['backbones', 'tu-test_resnet'])\n"
        "print(json.dumps([code, 'tu-test_resnet' in out.getvalue(), 'torch' in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert json.loads(answer.stdout) == [0, True, False], answer.stderr


# Weights


def test_weights_are_here_if_the_hub_has_fetched_them(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert not lies_here("hf://timm/some.tag/model.safetensors")
    folder = tmp_path / "models--timm--some.tag"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    assert not lies_here("hf://timm/some.tag/model.safetensors")
    (folder / "snapshots" / "abc" / "model.safetensors").write_bytes(b"")
    assert lies_here("hf://timm/some.tag/model.safetensors")
    assert not lies_here("hf://timm/some.tag@def/model.safetensors")


def test_weights_are_here_if_torch_hub_has_fetched_them(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not lies_here("https://example.org/files/net-1.pth")
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "net-1.pth").write_bytes(b"")
    assert lies_here("https://example.org/files/net-1.pth")


def test_asking_fetches_nothing(attentkit, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something was fetched")

    monkeypatch.setattr("socket.socket.connect", refuse)
    known = listed(attentkit, "tu-test_vit")
    assert known["tu-test_vit"]["weights_are"] in ("here", "download")


def test_whatever_a_memory_is_asked_it_names_only_backbones_of_the_registry():
    with pytest.raises(ConfigError, match="'nothing of the kind'"):
        find(load().registry, "nothing of the kind")
    registry = load().registry
    names = Memory(registry).names(registry.find("segmentors", "smp"))
    assert tuple(names) == SmpSegmentor.backbones()
