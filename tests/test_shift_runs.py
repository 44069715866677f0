"""Slices as vectors, worked out by hand; and the shift of runs as it is measured, written, kept and printed."""

import csv
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.apply.trained import open_run
from attent_kit.engine.study import shift as engine
from attent_kit.engine.study.runs import OpenedRuns, finished_runs
from attent_kit.engine.study.shift import Meter, shift_of_comparison
from attent_kit.engine.study.views import Slices, sample, view_of_images, view_through
from attent_kit.errors import ConfigError, DataError, RunError
from attent_kit.files import read_signed, write_signed
from attent_kit.interfaces import Task
from attent_kit.report.scores import write_scores
from attent_kit.report.shift import ShiftRow, change
from support import known_fates
from support.comparison_folder import write_plan
from support.known_fates import METHODS, REGISTRY
from support.stand_in import SOFT

CPU = torch.device("cpu")


def slices(*values, size=16):
    """Flat slices, a patient each."""
    images = np.stack([np.full((1, size, size), value, np.float16) for value in values])
    return Slices(images, np.array([f"p{n}" for n in range(len(values))]))


def method(name, **more):
    component = METHODS[name]
    alignment = component(component.Config(), None, Task(organs=("middle", "bright")))
    for attribute, value in more.items():
        setattr(alignment, attribute, value)
    return alignment


# Slices as vectors


def test_pixels_are_means_and_deviations_of_fields():
    # 16 x 16 pixels in 8 x 8 fields of 2 x 2: columns of 0 and 1 have mean 1/2 and deviation 1/2 in each.
    stripes = Slices(np.tile(np.float16([0, 1]), (1, 1, 16, 8)), np.array(["p"]))
    vectors = view_of_images(stripes)["pixels"].vectors
    assert vectors == pytest.approx(np.full((1, 128), 0.5))
    assert view_of_images(slices(0.25))["pixels"].vectors[0] == pytest.approx([0.25] * 64 + [0] * 64)


def test_of_several_channels_the_middle_one_counts():
    images = np.stack([np.full((16, 16), value, np.float16) for value in (-1, 0.5, 1)])[None]
    assert view_of_images(Slices(images, np.array(["p"])))["pixels"].vectors[0, 0] == pytest.approx(0.5)


def test_outputs_and_entropy_are_those_of_the_method():
    # With soft slopes a value of 0 is class 0, 1 and 2 with 1/4, 1/2 and 1/4: 3/2 bits of log2(3).
    alignment = method("identity")
    torch.nn.init.constant_(alignment.S.slope, SOFT)
    view = view_through(alignment, slices(0.0), of_source=False, device=CPU)
    assert view["outputs"].vectors.reshape(3, 64) == pytest.approx(np.repeat([[0.25], [0.5], [0.25]], 64, 1), abs=1e-5)
    assert view["entropy"].vectors[0] == pytest.approx([1.5 / np.log2(3)] * 64, abs=1e-5)
    assert view["features"].vectors.shape == (1, 1)


def test_a_target_is_seen_as_it_reaches_the_segmentor():
    view = view_through(method("negative"), slices(0.25, 0.75), of_source=False, device=CPU)
    assert view["pixels"].vectors[:, 0] == pytest.approx([-0.25, -0.75])
    assert view["features"].vectors[:, 0] == pytest.approx([-0.25, -0.75])
    # Organ 2 is 0.75 and becomes air.
    assert view["outputs"].vectors.reshape(2, 3, 64)[1, :, 0] == pytest.approx([1, 0, 0], abs=1e-5)
    assert list(view["pixels"].patients) == ["p0", "p1"]


def test_a_source_is_seen_as_the_segmentor_learned_from_it():
    as_it_is = view_through(method("negative"), slices(0.25), of_source=True, device=CPU)
    assert as_it_is["features"].vectors[0, 0] == pytest.approx(0.25)
    alignment = method("negative", as_seen=lambda x_s: x_s / 2)
    translated = view_through(alignment, slices(0.5), of_source=True, device=CPU)
    assert translated["pixels"].vectors[0, 0] == translated["features"].vectors[0, 0] == pytest.approx(0.25)


def test_a_method_that_segments_without_its_segmentor_is_not_seen():
    alignment = method("identity", predict=lambda x_t: x_t.repeat(1, 3, 1, 1))
    assert view_through(alignment, slices(0.0), of_source=False, device=CPU) is None
    assert not alignment.S._forward_hooks


def test_what_is_no_number_is_refused_in_a_sentence():
    alignment = method("identity", as_seen=lambda x_s: x_s * math.nan)
    with pytest.raises(RunError, match="not finite"):
        view_through(alignment, slices(0.5), of_source=True, device=CPU)


def test_the_sample_is_of_every_patient_and_depends_on_the_seed_alone(prepared):
    ct = Prepared.open(prepared / "ct.h5")
    chosen = sample(ct, 2, seed=0)
    assert list(chosen.patients) == ["ct_1"] * 2 + ["ct_2"] * 2 + ["ct_3"] * 2
    again, other = sample(ct, 2, seed=0), [sample(ct, 2, seed=seed) for seed in range(1, 6)]
    assert (again.images == chosen.images).all()
    assert any((one.images != chosen.images).any() for one in other)
    assert len(sample(ct, 99, seed=0).patients) == sum(len(case.kept) for case in ct.cases)


# Runs


@pytest.fixture
def quick(monkeypatch):
    """Pictures are empty files: only tests that do not ask for this draw them."""

    def draw(panels, rows, title, stem):
        files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
        for file in files:
            file.write_bytes(b"")
        return files

    monkeypatch.setattr(engine, "shift_figure", draw)


@pytest.fixture
def trained_as(prepared, tmp_path):
    """`trained_as("lost")` is the folder of a finished run, OUT/mr2ct/lost/seed0."""

    def folder(name):
        place = tmp_path / "out" / "mr2ct" / name / "seed0"
        return known_fates.trained_as(name, place, prepared / "mr.h5", prepared / "ct.h5")

    return folder


@pytest.fixture
def domains(prepared):
    return Prepared.open(prepared / "mr.h5"), Prepared.open(prepared / "ct.h5")


def values(made, when):
    return {(row.space, row.measure): row.value for row in made.rows if row.when == when}


def baseline_of(folder, registry):
    runs = OpenedRuns(registry)
    found = runs.baseline_of(runs.open(folder))
    return None if found is None else found.folder


def of_run(meter, folder, domains, baseline):
    return meter.of_run(meter.runs.open(folder), *domains, None if baseline is None else meter.runs.open(baseline))


def measure(out):
    return shift_of_comparison(out, Meter(REGISTRY, "cpu"), lambda what, done, total: None)


def test_images_alone_are_compared_before_any_alignment(domains):
    made = Meter(REGISTRY, "cpu").of_images(*domains)
    assert [(row.direction, row.row, row.space, row.when) for row in made.rows] == [
        ("mr2ct", "", "pixels", "before")
    ] * 3
    assert [row.measure for row in made.rows] == ["proxy-a-distance", "mmd", "coral"]
    assert made.rows[0].value == 2


def test_a_domain_and_itself_are_not_apart(domains):
    made = Meter(REGISTRY, "cpu").of_images(domains[0], domains[0])
    assert values(made, "before")["pixels", "proxy-a-distance"] == pytest.approx(0, abs=0.2)
    assert values(made, "before")["pixels", "coral"] == 0
    assert values(made, "before")["pixels", "mmd"] <= 0


def test_before_is_the_run_that_learned_from_the_source_alone(trained_as, domains, monkeypatch):
    alone, run = trained_as("alone"), trained_as("negative")
    assert baseline_of(run, REGISTRY) == baseline_of(alone, REGISTRY) == alone
    monkeypatch.chdir(run)
    assert baseline_of(Path("."), REGISTRY) == alone
    meter = Meter(REGISTRY, "cpu")
    baseline, made = of_run(meter, alone, domains, alone), of_run(meter, run, domains, alone)
    assert values(baseline, "before") == values(baseline, "after") == values(made, "before")
    assert len(values(made, "after")) == 4 * 3
    assert values(made, "after") != values(made, "before")
    assert values(made, "before")["pixels", "mmd"] == values(meter.of_images(*domains), "before")["pixels", "mmd"]
    assert made.notes == []


def test_without_a_baseline_only_pixels_are_known_before(trained_as, domains):
    run = trained_as("negative")
    assert baseline_of(run, REGISTRY) is None
    made = of_run(Meter(REGISTRY, "cpu"), run, domains, None)
    assert {space for space, _ in values(made, "before")} == {"pixels"}
    assert {space for space, _ in values(made, "after")} == {"pixels", "features", "outputs", "entropy"}
    assert "--baseline" in made.notes[0]


def test_a_run_of_another_seed_or_data_is_no_baseline(trained_as):
    alone, run = trained_as("alone"), trained_as("identity")
    config = alone / "config.toml"
    config.write_text(config.read_text().replace('source_hash = "', 'source_hash = "0'))
    assert baseline_of(run, REGISTRY) is None
    alone.rename(alone.parent / "seed1")
    assert baseline_of(run, REGISTRY) is None


def test_the_baseline_of_a_run_that_was_retrained_is_of_its_seed_whatever_its_folder_is_called(trained_as):
    alone, run = trained_as("alone"), trained_as("identity")
    retrained = shutil.copytree(run, run.with_name("seed0-1234abcd"))
    assert baseline_of(retrained, REGISTRY) == alone
    alone.rename(alone.with_name("seed01"))
    assert baseline_of(retrained, REGISTRY) is None


def test_of_several_baselines_the_one_that_the_comparison_shows_counts_or_the_newest(trained_as, tmp_path):
    alone, run = trained_as("alone"), trained_as("identity")
    older = shutil.copytree(alone, alone.with_name("seed0-1234abcd"))
    os.utime(older / "config.toml", (1, 1))
    assert baseline_of(run, REGISTRY) == alone
    os.utime(alone / "config.toml", (0, 0))
    assert baseline_of(run, REGISTRY) == older
    write_plan(tmp_path / "out", runs=["mr2ct/alone/seed0"])
    assert baseline_of(run, REGISTRY) == alone
    # One that is superseded is none, though that in its place is not finished.
    write_plan(tmp_path / "out", runs=["mr2ct/alone/seed0-1234abcd"])
    (older / "scores.csv").unlink()
    assert baseline_of(run, REGISTRY) is None


def test_of_several_baselines_that_a_comparison_shows_the_row_that_the_others_are_tested_against_counts(
    trained_as, tmp_path
):
    alone, run = trained_as("alone"), trained_as("identity")
    first = shutil.copytree(alone, tmp_path / "out" / "mr2ct" / "a-row-of-the-same-method" / "seed0")
    shown = [f"mr2ct/{row}/seed0" for row in ("a-row-of-the-same-method", "alone")]
    rows = {"Identity": "identity", "Alone": "alone", "A row of the same method": "alone"}
    write_plan(tmp_path / "out", runs=shown, rows=rows)
    assert baseline_of(run, REGISTRY) == alone
    write_plan(tmp_path / "out", runs=shown, rows=rows, reference="A row of the same method")
    assert baseline_of(run, REGISTRY) == first


def test_runs_that_have_scores_of_a_selection_alone_are_measured_at_the_end_of_training(trained_as, tmp_path, quick):
    for name in ("alone", "negative"):
        scores = trained_as(name) / "scores.csv"
        place = scores.parent / "selections" / "im"
        place.mkdir(parents=True)
        scores.rename(place / "scores.csv")
    write_plan(tmp_path / "out", select="im")
    measured = measure(tmp_path / "out")
    of_row = [(row.space, row.when) for row in measured.rows if row.row == "negative" and row.direction == "mr2ct"]
    assert len(set(of_row)) == 2 * 4 and measured.failed == []
    assert measured.notes[0].endswith("the table shows the snapshots that im chose.")


def test_a_comparison_is_measured_run_by_run_in_one_table(trained_as, tmp_path):
    trained_as("alone"), trained_as("aside")
    measured = measure(tmp_path / "out")
    with open(tmp_path / "out" / "shift.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["direction", "row", "seed", "space", "when", "measure", "value", "spread", "zero", "fold"]
    assert len(rows) == len(measured.rows) == 2 * 2 * 4 * 3
    assert {(row["direction"], row["row"], row["seed"]) for row in rows} == {
        ("mr2ct", "alone", "0"),
        ("mr2ct", "aside", "0"),
    }
    assert [float(row["value"]) for row in rows] == pytest.approx([row.value for row in measured.rows], nan_ok=True)
    for row in ("alone", "aside"):
        for ending in ("png", "svg"):
            assert (tmp_path / "out" / f"shift-mr2ct-{row}.{ending}").stat().st_size > 10_000
    assert measured.failed == []


def test_each_run_of_a_comparison_is_opened_once(trained_as, tmp_path, monkeypatch, quick):
    folders = {trained_as(name).resolve() for name in ("alone", "aside", "negative")}
    opened = []

    def counted(folder, registry):
        opened.append(folder.resolve())
        return open_run(folder, registry)

    monkeypatch.setattr("attent_kit.engine.study.runs.open_run", counted)
    monkeypatch.chdir(tmp_path)
    measured = measure(Path("out"))
    assert sorted(opened) == sorted(folders) and measured.failed == []
    assert all(not file.is_absolute() for file in measured.files)


def test_a_second_call_measures_only_what_is_missing(trained_as, tmp_path, monkeypatch, quick):
    trained_as("alone"), trained_as("aside")
    first = measure(tmp_path / "out")
    trained_as("negative")
    loaded = []
    load = engine.load_run
    monkeypatch.setattr(
        engine, "load_run", lambda run, *more: loaded.append(run.folder.parent.name) or load(run, *more)
    )
    second = measure(tmp_path / "out")
    assert sorted(loaded) == ["alone", "negative"]
    kept = [row for row in second.rows if row.row != "negative"]
    assert str(kept) == str(first.rows)  # NaN is not itself, but prints the same
    loaded.clear()
    assert str(measure(tmp_path / "out").rows) == str(second.rows)
    assert loaded == []


@pytest.mark.parametrize("spoil", [lambda cache: b"{", lambda cache: cache.replace(b'"seed": 0', b'"seed": 1')])
def test_a_cache_that_is_damaged_or_of_something_else_is_measured_again(trained_as, tmp_path, spoil, quick):
    run = trained_as("alone")
    first = measure(tmp_path / "out")
    cache = run / "shift.json"
    good = cache.read_bytes()
    cache.write_bytes(spoil(good))
    assert str(measure(tmp_path / "out").rows) == str(first.rows)
    assert cache.read_bytes() == good


def test_other_slices_or_another_seed_are_measured_anew(trained_as, domains):
    run = trained_as("alone")
    first, other, fewer = (
        values(of_run(Meter(REGISTRY, "cpu", slices, seed), run, domains, run), "after")
        for slices, seed in ((2, 0), (2, 5), (1, 5))
    )
    assert first != other and other != fewer


def test_a_run_that_cannot_be_measured_does_not_stop_the_others(trained_as, tmp_path, quick):
    trained_as("alone")
    (trained_as("aside") / "checkpoint.ckpt").write_bytes(b"spoilt")
    measured = measure(tmp_path / "out")
    assert {row.row for row in measured.rows} == {"alone"}
    assert [folder.parent.name for folder, _ in measured.failed] == ["aside"]


def test_seeds_are_in_order_of_their_number(tmp_path):
    for seed in (10, 2):
        write_scores(tmp_path / "mr2ct" / "row" / f"seed{seed}" / "scores.csv", [])
    assert [folder.name for folder in finished_runs(tmp_path)] == ["seed2", "seed10"]
    with pytest.raises(ConfigError, match="holds no finished run"):
        finished_runs(tmp_path / "mr2ct")


def test_a_run_of_other_slices_is_refused(trained_as, domains):
    run = trained_as("alone")
    domain = run / "domain.json"
    write_signed(domain, {**read_signed(domain), "size": 64})
    with pytest.raises(DataError, match="64 x 64"):
        of_run(Meter(REGISTRY, "cpu"), run, domains, None)


def test_a_change_within_twice_the_spreads_is_none():
    def row(value, spread):
        return ShiftRow("mr2ct", "r", 0, "pixels", "before", "mmd", value, spread, 0.0)

    # Twice the root of 3^2 + 4^2 is 10.
    assert change(row(20, 3), row(10.5, 4)) == "same"
    assert change(row(20, 3), row(9.5, 4)) == "down"
    assert change(row(0, 3), row(10.5, 4)) == "up"
    assert change(row(0, 3), row(1, math.nan)) == "-"


# The commands


def test_two_files_are_printed_and_nothing_is_written(attentkit, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = attentkit("shift", prepared / "mr.h5", prepared / "ct.h5")
    assert answer.code == 0 and "2.00" in answer.out
    assert list(tmp_path.iterdir()) == []


def test_json_holds_every_number_and_null_where_there_is_none(attentkit, prepared, own_run, tmp_path):
    answer = attentkit(
        "shift", prepared / "mr.h5", prepared / "ct.h5", "--run", own_run, "--baseline", own_run, "-d", "cpu", "--json",
        "-o", tmp_path / "new",
    )  # fmt: skip
    rows = json.loads(answer.out)
    assert answer.code == 0 and len(rows) == 24
    assert all(row["zero"] is None for row in rows if row["measure"] == "mmd")  # three patients have no halves of two
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["shift.csv", "shift.png", "shift.svg"]
    assert attentkit("shift", own_run, "-d", "cpu").code == 0
    assert (own_run / "shift.csv").exists() and (own_run / "shift.png").exists()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["shift", "{p}/mr.h5"], 2, "name two prepared files"),
        (["shift", "{p}/mr.h5", "{p}/ct.h5", "{p}/ct.h5"], 2, "name two prepared files"),
        (["shift", "{p}/mr.h5", "{p}/gone.h5"], 3, "gone.h5 does not exist"),
        (["shift", "{p}"], 2, "holds no finished run"),
        (["shift", "{p}", "--out", "x"], 2, "leave out --run, --baseline and --out"),
        (["shift", "{p}/mr.h5", "{p}/ct.h5", "--baseline", "{p}"], 2, "name that with --run"),
        (["shift", "{p}/mr.h5", "{p}/ct.h5", "--run", "{p}"], 2, "does not hold a trained run"),
        (["shift", "{p}/mr.h5", "{p}/ct.h5", "--device", "tpu", "--run", "{r}"], 2, "--device tpu"),
        (["audit", "{r}"], 2, "'source_only' translates no images to source style"),
        (["audit", "{p}"], 2, "holds no finished run"),
        (["audit", "{p}", "--baseline", "{r}"], 2, "--baseline judges a single run"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(attentkit, prepared, trained, words, code, sentence):
    answer = attentkit(*[word.format(p=prepared, r=trained) for word in words])
    assert (answer.code, answer.out) == (code, "")
    assert sentence in answer.err


def test_compare_measures_the_shift_of_what_it_has_trained(attentkit, suite, tmp_path):
    answer = attentkit("compare", suite, "--seeds", 0, "--directions", "mr2ct", "-d", "cpu", "-o", tmp_path, "--shift")
    assert answer.code == 0
    assert {"shift.csv", "shift-mr2ct-attent.png", "shift-mr2ct-w-o-adaptation.svg"} <= {
        p.name for p in tmp_path.iterdir()
    }
    run = tmp_path / "mr2ct" / "attent" / "seed0"
    assert (run / "translation_audit.csv").exists() and str(run / "translation_audit.png") in answer.out
    shown = attentkit("audit", tmp_path, "-d", "cpu")
    assert shown.code == 0 and "The judge is source_only in seed0; expected is truth." in shown.out
