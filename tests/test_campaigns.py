"""A short form of each campaign of benchmarks/campaigns, in a process of its own, which it forks; and that a loss is a loss."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from campaigns.artefacts import spoil  # noqa: E402
from campaigns.trying import Forked, Lost, Try, accepted, by_kind, campaign, command, summed  # noqa: E402

SHORT = {"kills": 2, "artefacts": 4, "scarcity": 2, "together": 1, "hostile": 60}


@pytest.mark.skipif(sys.platform != "linux", reason="campaigns look into /proc and fork")
def test_nothing_is_lost_in_a_short_form(tmp_path):
    paths = [str(ROOT / "benchmarks"), str(ROOT / "tests"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    names = [f"{name}:{tries}" for name, tries in SHORT.items()]
    words = [sys.executable, "-m", "campaigns", *names, "--work", str(tmp_path)]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for name, tries in SHORT.items():
        assert f"{name}: {tries} tried, {tries} survived, 0 lost" in ended.stdout


def test_a_campaign_goes_on_where_it_was_and_counts_what_was_lost(tmp_path):
    seen = []

    def one(chance, number):
        seen.append((number, chance.random()))
        if number == 2:
            raise Lost("it broke", "odd")
        return "even" if number % 2 == 0 else "odd"

    said = []
    done = campaign("c", 3, 7, tmp_path, one, said.append)
    assert summed(done) == "3 tried, 2 survived, 1 lost" and "it broke" in said[0]
    with (tmp_path / "c-7.jsonl").open("a") as file:
        file.write('{"number": 3, "ki')  # as a kill leaves it
    text = (tmp_path / "c-7.jsonl").read_text()
    (tmp_path / "c-7.jsonl").write_text(text + "\n")
    done = campaign("c", 5, 7, tmp_path, one, said.append)
    assert [number for number, _ in seen] == [0, 1, 2, 3, 4] and summed(done) == "5 tried, 4 survived, 1 lost"
    assert by_kind(done) == {"even": (2, 0), "odd": (3, 1)}
    assert random.Random("c-7-4").random() == seen[-1][1] and Try(**json.loads(text.splitlines()[0])).kind == "even"


def test_a_traceback_a_strange_code_and_a_process_left_behind_are_losses():
    def fails():
        raise ValueError("no sentence")

    def leaves():
        os.system("sleep 40 &")
        return 0

    assert accepted(command("list").wait(), "list", "list").code == 0
    for work, words in ((fails, "no sentence"), (lambda: 7, "ended with 7")):
        with pytest.raises(Lost, match=words):
            accepted(Forked(work).wait(), "it", "kind")
    process = Forked(leaves)
    process.patience = 0.2
    with pytest.raises(Lost, match="left 1 process"):
        accepted(process.wait(), "it", "kind")


@pytest.mark.parametrize("damage", ["bit", "bits", "truncated", "zeroed", "emptied", "torn", "garbage", "missing"])
def test_a_spoilt_file_is_another_one_and_its_copy_is_not(tmp_path, damage):
    content = bytes(range(1, 200))
    for name in "ab":
        (tmp_path / name).write_bytes(content)
    os.link(tmp_path / "a", tmp_path / "c")
    for seed in range(5):
        spoil(tmp_path / "a", damage, random.Random(seed)) if (tmp_path / "a").exists() else None
    assert not (tmp_path / "a").exists() or (tmp_path / "a").read_bytes() != content
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == content
