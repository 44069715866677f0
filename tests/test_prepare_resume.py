"""A `prepare` that is stopped, wherever that is, goes on to the same bytes; so does one of any number of processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from attent_kit.data.prepare import cases
from attent_kit.data.prepare.options import PrepareOptions
from attent_kit.data.prepare.plan import PairList
from attent_kit.data.prepare.prepare import prepare
from attent_kit.data.prepare.unfinished import Unfinished, key_of
from attent_kit.data.sets.pairs import find_pairs
from attent_kit.data.workers import asking
from attent_kit.errors import RunError
from support.cases import contents, write_case
from support.commands import on_a_full_disk, prepare_words
from support.messages import quotes
from support.waiting import until

OPTIONS = {"modality": "mr", "size": 12, "test": ["c4"], "channels": 3, "foreground_only": True}


@pytest.fixture(scope="module")
def volumes_of_five(tmp_path_factory):
    """{images,labels}/c1..c5, MR, so that percentiles are measured first."""
    folder = tmp_path_factory.mktemp("five")
    for n in range(1, 6):
        write_case(folder, f"c{n}", "mr", seed=n)
    return folder


@pytest.fixture(scope="module")
def undisturbed(volumes_of_five, tmp_path_factory):
    """mr.h5 and mr.toml as a call makes them that nothing stops."""
    out = tmp_path_factory.mktemp("undisturbed")
    prepare(pairs_of(volumes_of_five), out / "mr.h5", PrepareOptions(**OPTIONS))
    assert sorted(contents(out)) == ["mr.h5", "mr.toml"]
    return contents(out)


def pairs_of(folder):
    return find_pairs(folder / "images", folder / "labels")


# The processes fork after their imports; in a child, the n-th call of any function, Python's or C's, is its last.

KILLED = """
import json, os, random, signal, sys
from pathlib import Path
from attent_kit.data.sets.pairs import find_pairs
from attent_kit.data.prepare.options import PrepareOptions
from attent_kit.data.prepare.prepare import prepare

folder, place, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
pairs = find_pairs(folder / "images", folder / "labels")

def attempt(out, last):
    '''Prepare in a child that dies at its call number `last`; how many calls it made if it lived.'''
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        calls = 0
        def count(frame, event, argument):
            nonlocal calls
            calls += event in ("call", "c_call")
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(count)
        prepare(pairs, out, PrepareOptions(**options))
        sys.setprofile(None)
        os.write(writer, str(calls).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        return int(answer.read() or 0)

total = attempt(place / "count.h5", None)
draw = random.Random(7)
points = sorted(draw.sample(range(1, total), 12)) + [total - 60, total - 30, total - 8]
for n, point in enumerate(points):
    out = place / str(n) / "mr.h5"
    out.parent.mkdir()
    assert attempt(out, point) == 0, point
    left = sorted(path.name for path in out.parent.iterdir())
    assert set(left) <= {".mr.h5.unfinished", "mr.h5", "mr.toml"}, left
    if "mr.h5" in left:
        assert out.read_bytes() == (place / "count.h5").read_bytes(), point
    attempt(out, draw.randrange(1, total))
    attempt(out, None)
print(total, len(points))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_any_point_and_started_again_it_ends_in_the_same_bytes(volumes_of_five, undisturbed, tmp_path):
    words = [sys.executable, "-c", KILLED, volumes_of_five, tmp_path, json.dumps(OPTIONS)]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    total, points = map(int, done.stdout.split())
    assert total > 5000 and points == 15
    for n in range(points):
        assert contents(tmp_path / str(n)) == undisturbed, n


def read_by(monkeypatch):
    """Names of the images that are read from now on."""
    read, original = [], cases.read_scan

    def counted(layout, entry):
        read.append(entry.id)
        return original(layout, entry)

    monkeypatch.setattr(cases, "read_scan", counted)
    return read


def stop_at(number):
    def report(case, done, total):
        if done == number:
            raise KeyboardInterrupt

    return report


def test_what_was_finished_is_not_read_again(volumes_of_five, undisturbed, tmp_path, monkeypatch):
    read = read_by(monkeypatch)
    out, pairs = tmp_path / "mr.h5", pairs_of(volumes_of_five)
    with pytest.raises(KeyboardInterrupt):
        prepare(pairs, out, PrepareOptions(**OPTIONS), report=stop_at(6))  # measures four, then finishes c1 and c2
    assert read == ["c1", "c2", "c3", "c5", "c1", "c2"]
    assert [path.name for path in tmp_path.iterdir()] == [".mr.h5.unfinished"]
    read.clear()
    prepare(pairs, out, PrepareOptions(**OPTIONS))
    assert read == ["c3", "c4", "c5"] and contents(tmp_path) == undisturbed


def test_a_case_that_changed_meanwhile_is_read_again_and_other_options_read_all_again(
    volumes_of_five, tmp_path, monkeypatch
):
    folder = shutil.copytree(volumes_of_five, tmp_path / "volumes")
    read = read_by(monkeypatch)
    out, options = tmp_path / "mr.h5", {**OPTIONS, "modality": "ct"}
    with pytest.raises(KeyboardInterrupt):
        prepare(pairs_of(folder), out, PrepareOptions(**options), report=stop_at(4))
    write_case(folder, "c2", "mr", seed=77)
    read.clear()
    with pytest.raises(KeyboardInterrupt):
        prepare(pairs_of(folder), out, PrepareOptions(**options), report=stop_at(4))
    assert read == ["c2"]
    read.clear()
    read.clear()
    newer = PairList(pairs_of(folder))
    newer.origin = "pairs of attent-kit 99"
    with pytest.raises(KeyboardInterrupt):
        prepare(newer, out, PrepareOptions(**options), report=stop_at(4))
    assert read == ["c1", "c2", "c3", "c4"]
    read.clear()
    again = prepare(pairs_of(folder), out, PrepareOptions(**{**options, "size": 10}))
    assert read == ["c1", "c2", "c3", "c4", "c5"]
    fresh = prepare(pairs_of(folder), tmp_path / "fresh.h5", PrepareOptions(**{**options, "size": 10}))
    assert again.manifest == fresh.manifest


def test_a_damaged_file_of_a_finished_case_is_made_anew(volumes_of_five, undisturbed, tmp_path):
    for spoil in (b"", b"PK\x03\x04 not an archive", None):
        with pytest.raises(KeyboardInterrupt):
            prepare(pairs_of(volumes_of_five), tmp_path / "mr.h5", PrepareOptions(**OPTIONS), report=stop_at(7))
        for path in (tmp_path / ".mr.h5.unfinished").glob("*.npz"):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 255
            path.write_bytes(bytes(content) if spoil is None else spoil)
        prepare(pairs_of(volumes_of_five), tmp_path / "mr.h5", PrepareOptions(**OPTIONS))
        assert contents(tmp_path) == undisturbed


def test_what_is_kept_comes_back_and_nothing_is_unpickled(tmp_path):
    kept = Unfinished(tmp_path / "ct.h5")
    with kept.claimed():
        arrays = {"images": np.arange(6, dtype=np.float16).reshape(1, 2, 3)}
        kept.save(key_of("a", 1), {"id": "ä"}, arrays)
        record, back = kept.load(key_of("a", 1))
        assert record == {"id": "ä"} and np.array_equal(back["images"], arrays["images"])
        assert kept.load(key_of("a", 2)) is None
        np.savez(kept.path("evil"), record=np.array([Path("x")], dtype=object))
        assert kept.load("evil") is None


def test_two_processes_do_not_prepare_the_same_file(volumes_of_five, tmp_path):
    out = tmp_path / "mr.h5"
    with Unfinished(out).claimed(), pytest.raises(RunError, match=r"mr\.h5 .*another process: wait"):
        prepare(pairs_of(volumes_of_five), out, PrepareOptions(**OPTIONS))
    prepare(pairs_of(volumes_of_five), out, PrepareOptions(**OPTIONS))


# Several processes


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_processes_finds_the_same_bytes(volumes_of_five, undisturbed, tmp_path, workers):
    calls = []
    prepare(
        pairs_of(volumes_of_five)[::-1],
        tmp_path / "mr.h5",
        PrepareOptions(**OPTIONS),
        workers=workers,
        report=lambda *c: calls.append(c),
    )
    assert contents(tmp_path) == undisturbed
    measured, finished = ["c1", "c2", "c3", "c5"], ["c1", "c2", "c3", "c4", "c5"]
    assert calls == [("", 0, 9), *((case, n, 9) for n, case in enumerate(measured + finished, start=1))]


def deaf_to_interrupts(_):
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="asks for the signal mask")
def test_only_the_process_that_hands_out_the_work_hears_an_interrupt():
    with asking(2, None) as ask:
        assert list(ask(deaf_to_interrupts, [1, 2, 3])) == [True, True, True]
        assert not deaf_to_interrupts(None)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.parametrize("limit", [0, 3_000, 20_000])
def test_a_full_disk_is_one_sentence_with_several_processes_too(volumes, tmp_path, limit):
    words = prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", "--workers", 2)
    code, err = on_a_full_disk(limit, *words)
    assert code == 1 and quotes(err, f"{tmp_path / 'ct.h5'} ... (File too large)")
    assert contents(tmp_path) == {}


def test_a_bad_case_is_the_same_sentence_from_several_processes(attentkit, volumes, tmp_path):
    folder = shutil.copytree(volumes / "ct", tmp_path / "ct")
    path = folder / "images" / "ct_2.nii.gz"
    path.write_bytes(path.read_bytes()[:4000])
    answers = [attentkit(*prepare_words(folder, tmp_path / "x.h5", "ct", "--workers", n)) for n in (1, 2)]
    assert answers[0] == answers[1] and answers[0].code == 3 and "ct_2.nii.gz" in answers[0].err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct"]


DEADLY = '''
import os, signal, time
from attent_kit import hookimpl
from attent_kit.data.prepare.plan import PairList
from attent_kit.data.sets.pairs import find_pairs


class Deadly(PairList):
    """Notes the process that reads, and then waits or is ended as a file beside the images says."""

    def __init__(self, path, part=None):
        super().__init__(find_pairs(path / "images", path / "labels"))
        self.place = path

    @classmethod
    def recognises(cls, path):
        return (path / "deadly").exists()

    def read(self, entry):
        word = (self.place / "deadly").read_text()
        (self.place / f"pid-{entry.id}").write_text(str(os.getpid()))
        if word == "end" and entry.id == "ct_2":
            os.kill(os.getpid(), signal.SIGKILL)
        while (self.place / "deadly").read_text() == "wait":
            time.sleep(0.01)
        return super().read(entry)


@hookimpl
def attentkit_layouts():
    return {"deadly": Deadly}
'''


@pytest.fixture
def deadly(volumes, tmp_path, install, found):
    """The CT volumes with a layout that can be told to end or to stop the process that reads them."""
    folder = shutil.copytree(volumes / "ct", tmp_path / "ct")
    found(install("deadly", DEADLY) + [point for point in entry_points(group="attentkit") if point.name == "builtin"])
    return folder


def test_a_process_that_is_ended_from_outside_is_one_sentence_and_the_rest_is_kept(attentkit, deadly, tmp_path):
    (deadly / "deadly").write_text("end")
    words = ["prepare", deadly, "--layout=deadly", "-o", tmp_path / "ct.h5", "--modality=ct", "--size=8"]
    outcome = attentkit(*words, "--workers", 2)
    assert outcome.code == 1 and "Traceback" not in outcome.err
    assert quotes(outcome.err, "process ... memory ... --workers 1")
    assert (tmp_path / ".ct.h5.unfinished").is_dir()
    (deadly / "deadly").write_text("")
    assert attentkit(*words).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct", "ct.h5", "ct.toml", "site"]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def start(deadly, out, word, workers=2, begun=2):
    """`prepare` by so many processes, of which some have begun to read and do what `word` says; and their numbers."""
    (deadly / "deadly").write_text(word)
    words = ["prepare", deadly, "--layout=deadly", "-o", out, "--modality=ct", "--size=8", f"--workers={workers}"]
    # A shell starts what runs in its background deaf to SIGINT, and this would inherit it.
    program = (
        "import signal, sys; from attent_kit.cli import run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    path = os.pathsep.join([str(out.parent / "site"), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    until(lambda: len([p for p in deadly.glob("pid-*") if p.read_text()]) >= begun or child.poll() is not None)
    return child, [int(path.read_text()) for path in deadly.glob("pid-*")]


def test_interrupted_it_ends_in_130_without_a_word_of_its_processes_and_goes_on(attentkit, deadly, tmp_path):
    # Of four processes for three cases one has nothing to do, and some are not there yet when the first has begun.
    child, _ = start(deadly, tmp_path / "ct.h5", "wait", workers=4, begun=1)
    os.killpg(child.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    (deadly / "deadly").write_text("")
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "same command again" in err and "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ct.h5.unfinished", "ct", "site"]
    for name in ("ct", "other"):
        words = ["--layout=deadly", "-o", tmp_path / f"{name}.h5", "--modality=ct", "--size=8"]
        assert attentkit("prepare", deadly, *words).code == 0
    assert (tmp_path / "ct.h5").read_bytes() == (tmp_path / "other.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ct", "ct.h5", "ct.toml", "other.h5", "other.toml", "site",
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_outlives_the_one_that_started_it(deadly, tmp_path):
    child, pids = start(deadly, tmp_path / "ct.h5", "wait")
    child.kill()
    child.communicate(timeout=60)
    assert len(pids) == 2 and child.pid not in pids
    until(lambda: not any(map(alive, pids)))
