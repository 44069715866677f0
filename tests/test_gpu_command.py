"""`make gpu` without a GPU: it says so, what it would start is there, and no part takes longer than it may."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu

    yield gpu
    del sys.modules["gpu"]


def test_without_a_gpu_it_says_so_and_ends_with_1(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(gpu, "taken", lambda *_: pytest.fail("nothing is started"))
    assert gpu.main() == 1
    assert "CUDA device" in capsys.readouterr().err


def test_its_parts_are_there_and_the_first_two_leave_half_of_the_time(gpu, tmp_path):
    found = gpu.parts(24, tmp_path)
    assert [name for name, _, _ in found[:2]] == ["tests", "throughput"] and len(found) == 6
    for _, command, _ in found:
        assert all(Path(word).exists() for word in command if word.startswith(str(ROOT)))
    assert sum(limit for _, _, limit in found[:2]) <= 0.5 * 24 * 60
    assert "gpu.py" in (ROOT / "Makefile").read_text() and "full" in found[2][1]


def test_a_part_is_stopped_when_its_time_is_over(gpu):
    seconds, code = gpu.taken([sys.executable, "-c", "import time; time.sleep(60)"], 1.5)
    assert code is None and seconds < 30
    assert gpu.taken([sys.executable, "-c", "raise SystemExit(3)"], 60)[1] == 3
    assert gpu.taken([sys.executable, "-c", "pass"], 0) == (0.0, None)
