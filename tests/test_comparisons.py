"""Comparisons that do not go as planned: several processes, failing rows, renamed and moved data."""

import subprocess
import threading

import pytest

from attent_kit.engine.compare.cells import run_cells
from attent_kit.engine.compare.watcher import CellWatcher
from attent_kit.engine.run.folder import Busy, RunFolder, alone_in
from attent_kit.report.scores import read_scores
from support.cases import contents
from support.commands import COMMAND
from support.failing_suite import SUITE, compare


@pytest.fixture
def suite(prepared, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(SUITE.format(source=prepared / "mr.h5", target=prepared / "ct.h5"))
    return path


def test_a_failing_row_is_reported_and_the_others_make_the_table(attentkit, suite, tmp_path):
    outcome = compare(attentkit, suite, tmp_path / "out")
    assert outcome.code == 1
    assert "1 of 3 runs failed" in outcome.err and "no longer a finite number" in outcome.err
    table = (tmp_path / "out/table.md").read_text()
    assert "| W/o | " in table and "| Broken | - |" in table and "## RED to BLUE: Dice" in table


def test_scores_carry_the_names_of_the_suite_and_not_those_inside_the_prepared_files(attentkit, suite, tmp_path):
    compare(attentkit, suite, tmp_path / "out", "-m", "supervised")
    assert {s.direction for s in read_scores(tmp_path / "out/scores.csv")} == {"red2blue"}


def test_a_narrowed_comparison_adds_to_the_table_that_is_there(attentkit, suite, tmp_path):
    compare(attentkit, suite, tmp_path / "out", "-m", "supervised")
    assert compare(attentkit, suite, tmp_path / "out", "-m", "feature").code == 0
    labels = {s.alignment for s in read_scores(tmp_path / "out/scores.csv")}
    assert labels == {"Supervised", "feature"}
    assert all(f"| {label} |" in (tmp_path / "out/table.md").read_text() for label in labels)


def test_a_comparison_goes_on_after_its_data_have_moved(attentkit, suite, prepared, tmp_path):
    compare(attentkit, suite, tmp_path / "out", "-m", "supervised")
    before = contents(tmp_path / "out/red2blue")
    for name in ("mr", "ct"):
        (tmp_path / f"{name}.h5").write_bytes((prepared / f"{name}.h5").read_bytes())
    suite.write_text(SUITE.format(source="mr.h5", target="ct.h5"))
    assert compare(attentkit, suite, tmp_path / "out", "-m", "supervised").code == 0
    assert contents(tmp_path / "out/red2blue") == before


def test_labels_that_would_share_a_folder_are_refused(attentkit, suite, tmp_path):
    suite.write_text(suite.read_text().replace('"Broken"', '"W o"'))
    outcome = compare(attentkit, suite, tmp_path / "out")
    assert outcome.code == 2 and "'W/o' and 'W o' would share the folder 'w-o'" in outcome.err


@pytest.mark.parametrize("word", ["seed=7", "data.source=x.h5", "alignment.dice=1"])
def test_what_belongs_to_the_suite_cannot_be_set(attentkit, suite, tmp_path, word):
    outcome = compare(attentkit, suite, tmp_path / "out", "--set", word)
    assert outcome.code == 2 and f"--set {word.partition('=')[0].partition('.')[0]}: " in outcome.err


def test_a_mistake_of_the_second_stage_is_met_before_the_first_is_trained(attentkit, prepared, tmp_path):
    outcome = attentkit(
        "train", "pixel", "-s", prepared / "mr.h5", "-t", prepared / "ct.h5", "-d", "cpu", "-o", tmp_path / "run",
        "--set=segmentor.architecture=deeplabv3plus", "--set=segment_batch_size=1", "--set=translator.width=4",
        "--set=translator.blocks=1", "--set=image_discriminator.layers=1",
    )  # fmt: skip
    assert outcome.code == 2 and "batch size of 2 or more" in outcome.err
    assert not (tmp_path / "run/checkpoint.ckpt").exists()


def test_predict_never_writes_over_its_input_or_over_another_file(attentkit, trained, volumes, tmp_path):
    image = tmp_path / "ct_3.nii.gz"
    image.write_bytes((volumes / "ct/images/ct_3.nii.gz").read_bytes())
    before = image.read_bytes()
    assert "is an input" in attentkit("predict", trained, image, tmp_path, "-d", "cpu", "--overwrite").err
    other = tmp_path / "other.nii.gz"
    other.write_text("precious")
    outcome = attentkit("predict", trained, image, other, "-d", "cpu")
    assert outcome.code == 2 and "--overwrite" in outcome.err and other.read_text() == "precious"
    assert attentkit("predict", trained, image, other, "-d", "cpu", "--overwrite").code == 0
    assert image.read_bytes() == before


def test_one_folder_belongs_to_one_process(tmp_path):
    with (
        alone_in(RunFolder(tmp_path / "run")),
        pytest.raises(Busy, match="another process trains"),
        alone_in(RunFolder(tmp_path / "run")),
    ):
        pass


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.checkpoint.ckpt.123.part").write_text("half")
    with alone_in(RunFolder(tmp_path / "run")):
        assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]


def test_two_processes_share_a_comparison(suite, prepared, tmp_path):
    """Each row is trained once, and both end with the whole table."""
    suite.write_text(suite.read_text().replace("1e30", "1e-4"))
    command = [*COMMAND, "compare", str(suite), "-d", "cpu", "-o", str(tmp_path / "out")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(read_scores(tmp_path / "out/scores.csv")) == 3 * 4 * 13
    assert all("Supervised" in output for output in outputs)


def test_a_busy_row_is_left_to_the_other_process_and_looked_at_again(suite, tmp_path, monkeypatch):
    from attent_kit.engine.compare import cells as module
    from attent_kit.engine.compare.suite import expand, read_suite
    from attent_kit.plugins import load

    registry = load().registry
    read = read_suite(suite, registry)
    cells = [c for c in expand(read, registry, read.domains, tmp_path / "out") if c.row != "Broken"]
    held, release, order = threading.Event(), threading.Event(), []

    def hold():
        with alone_in(RunFolder(cells[0].folder)):
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", 0.01)

    class Watcher(CellWatcher):
        def finished(self, cell):
            order.append(cell.row)

        def failed(self, cell, error):
            order.append(error)

        def waiting(self, cell):
            release.set()

    assert run_cells(cells, registry, tmp_path / "out", "cpu", Watcher()) == []
    holder.join()
    assert order == ["Supervised", "W/o"]
