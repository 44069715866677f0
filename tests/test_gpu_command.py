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


def test_no_part_begins_that_could_not_end_in_time(gpu, monkeypatch, tmp_path):
    """The clock is that of the parts: each takes all that it is given, and a minute to stop."""
    now, limits = [0.0], []

    def taken(command, limit):
        limits.append(limit)
        now[0] += max(limit, 0) + (gpu.SECONDS_TO_END if limit >= 1 else 0)
        return limit, None

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("attent_kit.engine.run.device.in_words", lambda device: "a GPU")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    monkeypatch.setattr(gpu, "RESULT", tmp_path / "gpu.md")
    monkeypatch.setattr(gpu, "taken", taken)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now[0])
    assert gpu.main() == 0
    assert now[0] <= 24 * 60 and limits[2] > 8 * 60
    assert (tmp_path / "gpu.md").read_text().count("when its time was over") == 6
