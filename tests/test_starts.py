"""Rows that start from other rows: in which order they are trained, where they lie, and what cannot be."""

import json

import pytest

from attent_kit.config import read_toml, validate
from attent_kit.engine.compare.cells import refuse_what_cannot_run, run_cells
from attent_kit.engine.compare.content import located
from attent_kit.engine.compare.search import refuse_search, studies_of
from attent_kit.engine.compare.starts import with_starts
from attent_kit.engine.compare.suite import Suite, expand, narrow
from attent_kit.engine.compare.watcher import CellWatcher
from attent_kit.engine.jobs.plan import planned, shapes
from attent_kit.engine.jobs.settings import launching
from attent_kit.engine.jobs.work import _cell, plain
from attent_kit.errors import ConfigError
from attent_kit.reading import json_in
from support.adapting_methods import SEGMENTOR, AtTestTime, SourceFree
from support.small_runs import REGISTRY, with_components

THEIRS = with_components(REGISTRY, ("alignments", "free", SourceFree), ("alignments", "at_test_time", AtTestTime))
ALONE = {"label": "W/o", "alignment": "source_only"}
FREE = {"label": "Free", "alignment": "free"}
OPTIONS = {"segmentor": SEGMENTOR, "segment_steps": 2, "segment_batch_size": 2, "steps": 2}


def suite_of(prepared, *rows, **more):
    domains = {name: prepared / f"{name}.h5" for name in ("mr", "ct")}
    given = {"name": "s", "directions": ["mr2ct"], "rows": rows, "domains": domains, "options": OPTIONS, **more}
    return validate(Suite, given, THEIRS)


def cells_of(prepared, out, *rows, words=(), **more):
    suite = suite_of(prepared, *rows, **more)
    return located(expand(suite, THEIRS, suite.domains, out, words), THEIRS)


class Told(CellWatcher):
    def __init__(self):
        self.done, self.lost = [], {}

    def finished(self, cell):
        self.done.append(cell.row)

    def failed(self, cell, error):
        self.lost[cell.row] = str(error)

    def waiting(self, cell):
        raise AssertionError("nobody else works here")


def run(cells, out):
    told = Told()
    run_cells(cells, THEIRS, out, "cpu", told)
    return told


def test_a_row_is_trained_after_the_one_that_it_starts_from_and_found_again(prepared, tmp_path):
    rows = [{**FREE, "label": "Twice", "start": "Free"}, FREE, ALONE]
    cells = cells_of(prepared, tmp_path, *rows)
    assert [cell.start.row if cell.start else None for cell in cells] == ["Free", "W/o", None]
    assert cells[0].settings.warm_start.digest is None and cells[0].settings.data.source is None
    assert refuse_what_cannot_run(cells, THEIRS) == {"Twice": 2, "Free": 2, "W/o": 2}
    assert run(cells, tmp_path).done == ["W/o", "Free", "Twice"]
    again = cells_of(prepared, tmp_path, *rows)
    assert all(cell.done for cell in again) and run(again, tmp_path).done == []
    assert read_toml(again[1].run.config)["warm_start"]["digest"] == again[1].settings.warm_start.digest
    assert read_toml(again[1].run.config)["warm_start"]["run"] == str(again[2].folder)

    # Other options of the start are another start, whose followers lie beside those that were there.
    other = cells_of(prepared, tmp_path, *rows, words=["segment_steps=3"])
    assert [cell.done for cell in other] == [False] * 3
    assert run(other, tmp_path).done == ["W/o", "Free", "Twice"]
    assert all(cell.done for cell in cells_of(prepared, tmp_path, *rows))
    assert {cell.folder.name[:6] for cell in located(other, THEIRS)} == {"seed0-"}


def test_a_start_that_fails_takes_along_what_starts_from_it(prepared, tmp_path, monkeypatch):
    rows = [FREE, ALONE]
    cells = cells_of(prepared, tmp_path, *rows)
    method = THEIRS.alignment("source_only")
    with monkeypatch.context() as patched:
        patched.setattr(method, "segment", lambda self, batch, update: 1 / 0)
        told = run(cells, tmp_path)
    assert "ZeroDivisionError" in told.lost["W/o"] and told.lost["Free"].startswith("it starts from W/o, mr2ct, seed 0")
    assert run(cells, tmp_path).done == ["W/o", "Free"]


def test_folds_and_seeds_start_from_their_own(prepared, tmp_path):
    cells = cells_of(prepared, tmp_path, ALONE, FREE, seeds=[0, 1], folds=3)
    free = [cell for cell in cells if cell.start]
    assert len(free) == 6 and all((c.seed, c.fold) == (c.start.seed, c.start.fold) for c in free)
    assert len({cell.settings.warm_start.run for cell in free}) == 6


def test_a_source_free_row_starts_from_the_first_that_learned_from_the_source_alone(prepared, tmp_path):
    two = {"label": "Two", "alignment": "source_only", "options": {"dice": 1.0}}
    attent = {"label": "AttENT", "alignment": "attent"}
    rows = [attent, ALONE, two, FREE, {**FREE, "label": "Other", "start": "Two"}]
    cells = {cell.row: cell for cell in cells_of(prepared, tmp_path, *rows)}
    assert cells["Free"].start.row == "W/o" and cells["Other"].start.row == "Two"
    chosen = narrow(suite_of(prepared, *rows), THEIRS, ["free"])
    assert [row.label for row in chosen.rows] == ["W/o", "Free", "Two", "Other"]
    added = narrow(suite_of(prepared, ALONE), THEIRS, ["at_test_time"])
    assert [row.label for row in added.rows] == ["W/o", "at_test_time"]
    assert [row.label for row in with_starts(added.rows, added.rows, THEIRS)] == ["W/o", "at_test_time"]


def test_a_row_may_start_from_a_run_and_other_methods_may_start_so_too(prepared, trained, tmp_path):
    small = {"segmentor": {**SEGMENTOR, "decoder_channels": [16, 8, 8]}}
    rows = [{**FREE, "start": str(trained)}, {**ALONE, "start": str(trained)}]
    cells = cells_of(prepared, tmp_path, *rows, options={**OPTIONS, **small})
    assert [cell.start for cell in cells] == [None, None]
    assert {cell.settings.warm_start.run for cell in cells} == {trained}
    assert cells[1].settings.data.source == prepared / "mr.h5"
    assert refuse_what_cannot_run(cells, THEIRS) == {"Free": 2, "W/o": 2}


def test_what_cannot_start_is_one_sentence(prepared, tmp_path):
    for words, *rows in [
        (("row 'Free'", "start = 'Wo'", "Did you mean 'W/o'"), ALONE, {**FREE, "start": "Wo"}),
        (("row 'Free'", "source-free", "LABEL OF A ROW"), {"label": "AttENT", "alignment": "attent"}, FREE),
        (
            ("starts from 'Free', which starts from it",),
            {**FREE, "start": "B"},
            {**FREE, "label": "B", "start": "Free"},
        ),
    ]:
        with pytest.raises(ConfigError) as error:
            cells_of(prepared, tmp_path, *rows)
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), error.value
    other = {**FREE, "options": {"segmentor": {"decoder_channels": [16, 8, 8]}}}
    with pytest.raises(ConfigError, match="row 'Free': it starts from 'W/o', whose network 'S' is not built as 'S' is"):
        refuse_what_cannot_run(cells_of(prepared, tmp_path, ALONE, other), THEIRS)
    with pytest.raises(ConfigError, match="which are not trained: leave out its start"):
        suite_of(prepared, ALONE, {"label": "Maps", "predictions": str(tmp_path), "start": "W/o"})


def test_a_search_leaves_rows_alone_whose_start_is_not_there_yet(prepared, tmp_path):
    for named in ([], ["Free"]):
        search = {"objective": "entropy", "sampler": "grid", "space": {"segmentor.jitter": [0.0, 0.1]}, "rows": named}
        suite = suite_of(prepared, ALONE, FREE, search=search)
        cells = expand(suite, THEIRS, suite.domains, tmp_path)
        if named:
            with pytest.raises(ConfigError, match="search.rows: 'Free' starts from another row"):
                refuse_search(suite, cells, THEIRS)
        else:
            assert [key.row for key in studies_of(suite, cells, THEIRS, tmp_path)] == ["w-o"]


def test_a_job_comes_after_that_of_its_start_and_tells_its_worker_of_it(prepared, tmp_path):
    suite = suite_of(prepared, FREE, ALONE)
    cells = located(expand(suite, THEIRS, suite.domains, tmp_path), THEIRS)
    asked = launching({}, "local", (), THEIRS)
    jobs = {p.cell.row: p for p in planned(suite, cells, shapes(suite, cells, THEIRS), asked, THEIRS, tmp_path)}
    assert jobs["Free"].job.after == (jobs["W/o"].job.name,) and jobs["W/o"].job.after == ()
    again = _cell(json_in(json.dumps(plain(cells[0]))), THEIRS)
    assert again.start.key == cells[1].key and again.start.settings == cells[1].settings
    assert run(cells, tmp_path).done == ["W/o", "Free"]
