"""What the loop adds to a step: numbers of the seed, and little time."""

import random
import sys
from pathlib import Path

import numpy as np
import torch

from attent_kit.engine.train.fit import seed_step

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_a_step_is_seeded_as_torch_numpy_and_random_seed_themselves():
    for step in (0, 1, 12345):
        mixed = int(np.random.SeedSequence((3, 1, step)).generate_state(1, np.uint32)[0])
        torch.manual_seed(mixed)
        np.random.seed(mixed)
        random.seed(mixed)
        expected = torch.rand(3).tolist(), torch.randint(9, (3,)).tolist(), np.random.rand(), random.random()
        seed_step(3, step)
        assert expected == (torch.rand(3).tolist(), torch.randint(9, (3,)).tolist(), np.random.rand(), random.random())


def test_the_benchmark_of_the_overhead_measures_every_stage(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import overhead

    monkeypatch.setattr(overhead, "TURN", 5)
    lines = overhead.measured("attent", 25)
    assert [line.split(" | ")[1] for line in lines] == ["translate", "segment"]
    for line in lines:
        ours, bare = (float(word) for word in line.split(" | ")[2:4])
        assert ours > 0 and bare > 0
    del sys.modules["overhead"]
