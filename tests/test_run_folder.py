"""A run's folder: what it is called, what lies where, how far it is; and JSON files of ours, whole and spoilt."""

import os
import subprocess
import sys

import pytest

from attent_kit.config import read_toml
from attent_kit.engine.run.folder import Answers, RunFolder, RunKey
from attent_kit.errors import ConfigError
from attent_kit.files import parse_object, read_json, while_unchanged, write_text
from attent_kit.report.scores import Score, write_scores


def score(case, organ, metric="dice"):
    return Score("AttENT", "mr2ct", 0, case, organ, metric, 0.5, "fraction")


WHOLE = [score(case, organ) for case in ("ct_1", "ct_2") for organ in ("liver", "spleen")]


@pytest.mark.parametrize("key", [RunKey("mr2ct", "attent", 0), RunKey("ct2mr", "w-o-adaptation", 12)])
@pytest.mark.parametrize("content", ["", "0123abcd"])
def test_the_place_of_a_run_is_made_and_read_by_one(tmp_path, key, content):
    run = key.folder(tmp_path, content)
    assert run.path == tmp_path / key.direction / key.row / (
        f"seed{key.seed}-{content}" if content else f"seed{key.seed}"
    )
    assert (run.key, run.out) == (key, tmp_path)
    assert run.name == run.path.relative_to(tmp_path).as_posix()


@pytest.mark.parametrize(
    "name", ["seed", "seed1-old", "seed1-0123ABCD", "seed-1", "seed1.5", "run", "1", "seed0123abcd-"]
)
def test_what_is_called_otherwise_is_no_run_of_a_comparison(tmp_path, name):
    (tmp_path / "mr2ct/attent" / name).mkdir(parents=True)
    assert RunFolder(tmp_path / "mr2ct/attent" / name).key is None and RunFolder.find(tmp_path) == []


def test_runs_are_found_below_a_comparison(tmp_path):
    names = ["ct2mr/b/seed1", "mr2ct/a/seed0", "mr2ct/a/seed0-0123abcd", "mr2ct/a/seed10"]
    for name in (*names, "mr2ct/a/x/seed0", "shared/seed0"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mr2ct/a/seed7").touch()
    assert [run.name for run in RunFolder.find(tmp_path)] == names


def test_answers_of_each_selection_have_a_place_of_their_own(tmp_path):
    run = RunFolder(tmp_path)
    assert run.answers().path == tmp_path and run.answers("entropy").path == tmp_path / "selections/entropy"
    for select in ("last", "entropy", "cycle"):
        write_scores(run.answers(select).scores, WHOLE)
    assert run.all_answers() == [run.answers(), run.answers("cycle"), run.answers("entropy")]


def cut(text):
    return text[:-20]


SPOILT = {
    "cut off": cut,
    "empty": lambda text: "",
    "without a line": lambda text: "".join(text.splitlines(True)[:-1]),
    "no text": lambda text: text + "\0\ud800",
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_run_is_done_only_with_whole_scores(tmp_path, kind):
    run = RunFolder(tmp_path / "run")
    answers = run.answers("entropy")
    assert not answers.done and not run.has_scores
    write_scores(answers.scores, WHOLE)
    assert answers.done and run.has_scores and not run.answers().done
    assert answers.covers(["ct_2"], ["liver"]) and not answers.covers(["ct_2", "ct_3"], ["liver"])
    assert not answers.covers(["ct_2"], ["kidney"])
    answers.scores.write_bytes(SPOILT[kind](answers.scores.read_text()).encode(errors="surrogatepass"))
    assert not answers.done and not run.has_scores and not answers.covers([], [])
    write_scores(answers.scores, WHOLE)
    assert answers.done


def test_without_a_labelled_test_case_a_run_is_done_with_no_scores(tmp_path):
    write_scores(tmp_path / "scores.csv", [])
    assert Answers(tmp_path).covers([], ["liver"]) and not Answers(tmp_path).covers(["ct_1"], ["liver"])


JSON = {
    "missing": None,
    "empty": b"",
    "torn": b'{"a": [1, 2',
    "a list": b"[1]",
    "a word": b'"config"',
    "no text": b'{"a": "\xff"}',
    "deep": b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "a long number": b'{"a": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("kind", JSON)
def test_a_json_file_that_is_spoilt_is_none(tmp_path, kind):
    file = tmp_path / "env.json"
    if JSON[kind] is not None:
        file.write_bytes(JSON[kind])
    assert read_json(file) is None and parse_object(JSON[kind] or b"", strict=True) is None


def test_a_folder_in_place_of_a_json_file_is_none(tmp_path):
    assert read_json(tmp_path) is None


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_only_where_it_is_asked_for_nan_is_no_json(word):
    text = f'{{"a": {word}, "b": 1}}'
    assert parse_object(text)["b"] == 1 and parse_object(text, strict=True) is None


def test_toml_that_is_nested_too_deeply_is_one_sentence(tmp_path):
    (tmp_path / "config.toml").write_text("a = " + "[" * 20_000 + "]" * 20_000)
    with pytest.raises(ConfigError, match="config.toml: cannot be read as TOML"):
        read_toml(tmp_path / "config.toml")


def test_a_file_is_read_again_only_once_it_has_changed(tmp_path):
    read = []

    @while_unchanged
    def length(path):
        read.append(path.name)
        return len(path.read_text()) if path.exists() else None

    file = tmp_path / "a"
    assert [length(file), length(file)] == [None, None] and len(read) == 1
    write_text(file, "one")
    assert [length(file), length(file)] == [3, 3] and len(read) == 2
    before = file.stat()
    write_text(file, "two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert length(file) == 3 and len(read) == 3  # Of the same size and date, and another file.
    file.unlink()
    assert length(file) is None


def test_what_is_written_is_synced_with_the_folder_that_names_it(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.fstat(number).st_ino), sync(number)))
    write_text(tmp_path / "a", "text")
    assert synced == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]


def test_a_system_that_opens_or_syncs_no_folder_is_written_to_all_the_same(tmp_path, monkeypatch):
    sync, opened = os.fsync, os.open

    def fsync(number):
        if os.path.samestat(os.fstat(number), tmp_path.stat()):
            raise OSError(22, "Invalid argument")
        sync(number)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a", "text")

    def refuse(path, *more, **options):
        if str(path) == str(tmp_path):
            raise PermissionError(13, "Permission denied")
        return opened(path, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    write_text(tmp_path / "b", "text")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["text", "text"]


def test_windows_which_does_not_say_how_much_memory_was_used_can_import_it():
    program = (
        "import sys, torch, attent_kit.data.prepared.file, attent_kit.engine.run.provenance\n"
        "sys.platform, sys.modules['resource'] = 'win32', None\n"
        "from attent_kit.engine.run import record\n"
        "print(record._peak_memory(torch.device('cpu')))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (answer.returncode, answer.stdout.strip()) == (0, "None"), answer.stderr
