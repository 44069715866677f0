"""Claims about the smp segmentor: sizes, architectures, encoders, weights from a file, errors before a device."""

import socket
import urllib.request
from pathlib import Path

import huggingface_hub.constants
import pytest
import segmentation_models_pytorch
import timm
import torch
from safetensors.torch import save_file

from attent_kit.build import configure
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Task
from attent_kit.registry import Registry
from attentkit_builtin.networks import hub
from attentkit_builtin.segmentors.smp import SmpSegmentor


def build(channels: int = 1, organs: int = 1, **options: object) -> SmpSegmentor:
    torch.manual_seed(0)
    task = Task(channels, tuple(f"organ {n}" for n in range(organs)))
    return SmpSegmentor(configure(SmpSegmentor, options, Registry()), task)


def refusal(**options: object) -> str:
    """What a Config of these options is refused with."""
    with pytest.raises(ConfigError) as error:
        configure(SmpSegmentor, options, Registry())
    return str(error.value)


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (2, 3, 64, 64), (1, 1, 33, 57), (2, 1, 96, 40)])
def test_the_logits_have_the_size_of_the_image_in_training_and_at_predict(shape: tuple[int, ...]) -> None:
    segmentor = build(shape[1], organs=7, auxiliary=4)
    for mode in (True, False):
        answer = segmentor.train(mode)(torch.randn(shape))
        assert answer.logits.shape == (shape[0], 8, *shape[2:])
        assert answer.auxiliary.shape == answer.logits.shape
        assert answer.features.shape[1] == segmentor.feature_channels == 512


def test_padding_is_cut_off_again() -> None:
    segmentor = build().eval()
    x = torch.randn(1, 1, 64, 64)
    x[..., 50:] = x[..., 49:50]
    torch.testing.assert_close(segmentor(x[..., :50]).logits, segmentor(x).logits[..., :50])


def test_the_encoder_runs_once_and_its_deepest_map_is_the_features() -> None:
    segmentor = build(auxiliary=3).eval()
    runs = []
    segmentor.network.encoder.register_forward_hook(lambda _, __, maps: runs.append(maps))
    answer = segmentor(torch.randn(1, 1, 64, 96))
    assert len(runs) == 1
    assert answer.features is runs[0][-1]
    assert answer.features.shape == (1, 512, 2, 3)


def test_without_padding_the_logits_are_those_of_smp() -> None:
    segmentor = build(architecture="fpn").eval()
    x = torch.randn(1, 1, 64, 64)
    assert torch.equal(segmentor(x).logits, segmentor.network(x))


@pytest.mark.parametrize(
    "architecture", [a for a in segmentation_models_pytorch.MODEL_ARCHITECTURES_MAPPING if a != "dpt"]
)
def test_every_architecture_segments_images_of_odd_sizes(architecture: str) -> None:
    segmentor = build(architecture=architecture, auxiliary=2)
    answer = segmentor(torch.randn(2, 1, 45, 70))
    assert answer.logits.shape == answer.auxiliary.shape == (2, 2, 45, 70)
    assert segmentor.eval()(torch.randn(1, 1, 32, 32)).logits.shape == (1, 2, 32, 32)


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        ("unet", "tu-convnext_atto"),
        ("unet", "tu-swin_tiny_patch4_window7_224"),
        ("upernet", "tu-resnet10t"),
        ("segformer", "mit_b0"),
        ("unet", "vgg11"),
        ("dpt", "tu-vit_tiny_patch16_224"),
    ],
)
def test_convolutional_and_windowed_and_plain_transformers_are_encoders(architecture: str, encoder: str) -> None:
    segmentor = build(architecture=architecture, encoder=encoder, auxiliary=2)
    answer = segmentor(torch.randn(2, 1, 45, 70))
    assert answer.logits.shape == answer.auxiliary.shape == (2, 2, 45, 70)
    assert answer.features.shape[1] == segmentor.feature_channels


def test_the_segmentor_is_finite_in_bfloat16_and_every_parameter_learns() -> None:
    segmentor = build(auxiliary=4)
    with torch.autocast("cpu", torch.bfloat16):
        answer = segmentor(torch.randn(1, 1, 32, 45))
    (answer.logits.float().square().sum() + answer.auxiliary.float().square().sum()).backward()
    assert answer.logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in segmentor.parameters())


def test_a_shallower_encoder_keeps_the_decoder_widths_of_the_finer_stages() -> None:
    segmentor = build(encoder_depth=3)
    blocks = segmentor.network.decoder.blocks
    assert [block.conv2[0].out_channels for block in blocks] == [64, 32, 16]
    assert segmentor(torch.randn(1, 1, 64, 64)).features.shape == (1, 128, 8, 8)


def test_decoder_channels_reach_the_decoder() -> None:
    unet = build(decoder_channels=[40, 32, 24, 16, 8])
    assert [block.conv2[0].out_channels for block in unet.network.decoder.blocks] == [40, 32, 24, 16, 8]
    deeplab = build(architecture="deeplabv3", decoder_channels=[24])
    assert deeplab.network.segmentation_head[0].in_channels == 24


def test_a_decoder_that_pools_the_whole_image_asks_for_two_images_in_training() -> None:
    segmentor = build(architecture="deeplabv3")
    with pytest.raises(ConfigError, match="batch size of 2 or more"):
        segmentor(torch.randn(1, 1, 64, 64))


def test_names_are_checked_with_the_config_and_the_nearest_is_named() -> None:
    assert "architecture" in refusal(architecture="unett") and "Did you mean 'unet'?" in refusal(architecture="unett")
    assert refusal(encoder="resnet81").endswith("Did you mean 'resnet18'?")
    assert refusal(encoder="tu-convnxt_tiny").endswith("Did you mean 'tu-convnext_tiny'?")
    assert refusal(encoder="convnext_tiny").endswith("write 'tu-convnext_tiny'.")
    assert refusal(encoder="tu-convnext_tiny.fb_in22kk").endswith("Did you mean 'tu-convnext_tiny.fb_in22k'?")
    assert "'imagenet', 'ssl', 'swsl', 'none'" in refusal(encoder_weights="imagnet")
    assert len(refusal(encoder="nothing like it")) < 200


def test_options_that_do_not_fit_each_other_are_refused_with_their_name() -> None:
    assert refusal(decoder_channels=[8, 8]).startswith("decoder_channels: ")
    assert "takes no decoder_channels" in refusal(architecture="fpn", decoder_channels=[8])
    assert "1 to 4 here, not 5" in refusal(auxiliary=5)
    assert "1 to 2 here, not 3" in refusal(auxiliary=3, architecture="pspnet")


def test_an_encoder_that_smp_refuses_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="'unet' .*5 stages .*'tu-vit_tiny_patch16_224'"):
        build(encoder="tu-vit_tiny_patch16_224")
    for encoder in ("tu-coat_tiny", "tu-efficientformerv2_s0"):
        with pytest.raises(ConfigError, match=r"takes images of one size only[.:]"):
            build(encoder=encoder)
    with pytest.raises(ConfigError, match="stage 1: .*auxiliary = 2"):
        build(encoder="tu-convnext_atto", auxiliary=1)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet10t"])
def test_weights_that_cannot_be_fetched_are_one_sentence(
    encoder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=f"'imagenet' .*'{encoder}' .*fetched"):
        build(encoder=encoder, encoder_weights="imagenet")


def test_without_a_hub_nothing_is_waited_for_and_nothing_logged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with pytest.raises(ConfigError, match="'pretrained' .*'tu-resnet10t' .*fetched"):
        build(encoder="tu-resnet10t", encoder_weights="pretrained")
    assert capfd.readouterr() == ("", "") and not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_hub_is_reached_where_it_or_the_proxy_takes_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"http://127.0.0.1:{server.getsockname()[1]}"
        for endpoint, proxies, reached in (
            (place, {}, True),
            ("http://127.0.0.1:1", {}, False),
            ("http://hub.invalid", {"http": place}, True),
            ("http://hub.invalid", {"all": place.removeprefix("http://")}, True),
            ("http://hub.invalid", {"http": "http://127.0.0.1:1"}, False),
        ):
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
            monkeypatch.setattr(urllib.request, "getproxies", lambda proxies=proxies: proxies)
            monkeypatch.setattr(urllib.request, "proxy_bypass", lambda host: False)
            assert hub.reachable() is reached


def test_weights_come_from_a_file_of_timm_whatever_its_prefix_and_wrapping(tmp_path: Path) -> None:
    given = timm.create_model("convnext_atto").state_dict()
    torch.save({"state_dict": {f"module.{name}": weight for name, weight in given.items()}}, tmp_path / "w.pth")
    segmentor = build(3, encoder="tu-convnext_atto", encoder_weights=str(tmp_path / "w.pth"))
    loaded = segmentor.network.encoder.model.state_dict()
    assert torch.equal(loaded["stages_2.blocks.1.conv_dw.weight"], given["stages.2.blocks.1.conv_dw.weight"])
    assert torch.equal(loaded["stem_0.weight"], given["stem.0.weight"])


def test_weights_for_colour_images_are_adapted_to_other_channels(tmp_path: Path) -> None:
    colour = build(3)
    save_file(colour.state_dict(), tmp_path / "w.safetensors")
    given = colour.network.encoder.conv1.weight
    grey = build(1, encoder_weights=str(tmp_path / "w.safetensors")).network.encoder
    torch.testing.assert_close(grey.conv1.weight, given.sum(1, keepdim=True))
    assert torch.equal(grey.layer4[1].conv2.weight, colour.network.encoder.layer4[1].conv2.weight)
    # Channels 3 and 4 repeat red and green; 3 / 5 keeps the size of the sum.
    five = build(5, encoder_weights=str(tmp_path / "w.safetensors")).network.encoder
    torch.testing.assert_close(five.conv1.weight[:, 4], given[:, 1] * 3 / 5)


def test_a_file_without_the_encoders_weights_is_refused(tmp_path: Path) -> None:
    save_file(build().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"80 of .*216 .*'layer1\.2\.conv1\.weight'"):
        build(encoder="resnet34", encoder_weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(ConfigError, match="there is no such file"):
        build(encoder_weights=str(tmp_path / "other.pth"))
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        build(encoder_weights=str(tmp_path / "text.pth"))


def test_a_folder_is_read_where_it_holds_one_file_of_weights(tmp_path: Path) -> None:
    options = {"encoder": "tu-test_resnet", "encoder_depth": 3}
    given = build(3, **options).network.encoder
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no \.safetensors, \.pth, \.pt or \.bin"):
        build(3, **options, encoder_weights=f"{tmp_path}/")
    save_file(given.state_dict(), tmp_path / "model.safetensors")
    torch.save({"other": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    torch.manual_seed(1)
    loaded = build(3, **options, encoder_weights=str(tmp_path)).network.encoder
    assert all(torch.equal(value, given.state_dict()[name]) for name, value in loaded.state_dict().items())
    save_file(given.state_dict(), tmp_path / "another.safetensors")
    with pytest.raises(ConfigError, match=r"holds 2 .safetensors files.*another.safetensors'"):
        build(3, **options, encoder_weights=str(tmp_path))


def test_a_file_that_does_not_fit_is_refused_with_the_first_names_in_it(tmp_path: Path) -> None:
    given = {"visual.a.weight": torch.ones(2), "visual.b.weight": torch.ones(2), "c": torch.ones(1), "d": torch.ones(1)}
    save_file(given, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError) as error:
        build(encoder_weights=str(tmp_path / "w.safetensors"))
    assert "4: 'c', 'd', 'visual.a.weight'" in str(error.value)


def test_weights_that_hold_code_are_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "run",))

    torch.save({"conv1.weight": Evil()}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        build(encoder_weights=str(tmp_path / "w.pth"))
    assert not (tmp_path / "run").exists()


def test_an_encoder_that_always_goes_down_to_a_32nd_gets_images_that_it_can_halve_so_often() -> None:
    """Three stages of HRNet end at an eighth, but it computes all of its own: 45 x 70 is padded to 64 x 96."""
    segmentor = build(architecture="pspnet", encoder="tu-hrnet_w18_small")
    assert (segmentor.feature_stride, segmentor.multiple) == (8, 32)
    answer = segmentor(torch.randn(2, 1, 45, 70))
    assert answer.logits.shape == (2, 2, 45, 70) and answer.features.shape[2:] == (8, 12)


def test_what_fits_is_proposed_for_what_does_not() -> None:
    with pytest.raises(ConfigError, match=r"dilated.*architecture = 'unet', or encoder = 'resnet18'"):
        build(architecture="deeplabv3", encoder="tu-vgg11")
    with pytest.raises(ConfigError, match=r"'dpt' .*timm.*architecture = 'unet', or encoder ="):
        build(architecture="dpt", encoder="resnet18")
    with pytest.raises(ConfigError, match=r"one resolution.*architecture = 'dpt', or encoder = 'resnet18'"):
        build(encoder="tu-test_vit")


@pytest.mark.parametrize(("options", "place"), [({}, 2), ({"architecture": "dpt", "encoder": "tu-test_vit"}, 1)])
def test_the_second_head_reads_the_stage_that_is_named(options: dict[str, str], place: int) -> None:
    """Stage 2 is the third map where the image is stage 0, and the second of dpt's encoders, which do not answer it."""
    segmentor = build(auxiliary=2, **options).eval()
    maps, read = [], []
    segmentor.network.encoder.register_forward_hook(
        lambda _, __, answer: maps.extend(answer[0] if isinstance(answer, tuple) else answer)
    )
    segmentor.auxiliary_head.register_forward_pre_hook(lambda _, inputs: read.extend(inputs))
    segmentor(torch.randn(1, 1, 64, 64))
    assert read[0] is maps[place]
