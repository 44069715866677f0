"""What imports may not do to the rest: print where JSON goes, hang, or change what torch computes with."""

import signal
import time

import pytest
import torch

from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.guard import guarded, import_limit
from attent_kit.plugins import load_from


def test_prints_go_to_stderr(capsys):
    with guarded(60):
        print("a word")
    assert capsys.readouterr() == ("", "a word\n")


def test_a_hanging_import_is_ended_even_if_it_catches_exceptions():
    with pytest.raises(AttentKitError, match="still being imported after 0.05 s"), guarded(0.05):
        try:
            time.sleep(60)
        except Exception:
            time.sleep(60)


def test_the_alarm_is_off_afterwards_and_the_handler_is_that_of_before():
    def mine(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGALRM, mine)
    try:
        with guarded(60):
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        assert signal.getsignal(signal.SIGALRM) is mine
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "change, name",
    [
        (lambda: torch.set_default_dtype(torch.float64), "default dtype"),
        (lambda: torch.set_default_device("meta"), "default device"),
        (lambda: torch.set_grad_enabled(False), "gradients"),
        (lambda: torch.use_deterministic_algorithms(True), "deterministic algorithms"),
        (lambda: torch.set_float32_matmul_precision("high"), "matrix precision"),
    ],
)
def test_a_setting_of_torch_is_put_back_and_said(change, name):
    with pytest.raises(AttentKitError, match=f"changes torch's {name}, for every method"), guarded(60):
        change()
    x = torch.ones(1, requires_grad=True) * 2
    assert (x.dtype, x.device.type, x.requires_grad) == (torch.float32, "cpu", True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "highest"


def test_settings_are_put_back_after_an_error_too_and_the_error_is_what_is_told():
    with pytest.raises(ValueError, match="no licence"), guarded(60):
        torch.set_default_dtype(torch.float64)
        raise ValueError("no licence")
    assert torch.get_default_dtype() == torch.float32


def test_a_limit_that_is_no_number_is_a_sentence(monkeypatch):
    assert import_limit(30) == 30
    monkeypatch.setenv("ATTENTKIT_IMPORT_SECONDS", "2.5")
    assert import_limit(30) == 2.5
    monkeypatch.setenv("ATTENTKIT_IMPORT_SECONDS", "soon")
    with pytest.raises(ConfigError, match="ATTENTKIT_IMPORT_SECONDS=soon: write seconds"):
        load_from([])
