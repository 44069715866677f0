"""Which slices are shown follows from rules, and what a run keeps of them is what its networks answered."""

import numpy as np
import pytest
import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.publish.panels import panel
from attent_kit.engine.run.folder import Answers
from attent_kit.engine.train import kept
from attent_kit.engine.train.kept import first_cases, keep_slices, median_and_worst, slice_to_show
from attent_kit.interfaces import Alignment
from attent_kit.report.scores import Score

CPU = torch.device("cpu")


def dice(case, *values):
    return [Score("A", "mr2ct", n, case, "liver", "dice", value, "fraction") for n, value in enumerate(values)]


def test_of_an_odd_number_of_cases_the_middle_and_the_last_are_shown():
    scores = dice("a", 0.9, 0.7) + dice("b", 0.2, 0.4) + dice("c", 0.6)
    assert median_and_worst(scores) == ["c", "b"]


def test_of_an_even_number_the_better_of_the_middle_two_is_shown_and_ties_go_by_name():
    assert median_and_worst(dice("d", 0.1) + dice("c", 0.5) + dice("b", 0.5) + dice("a", 0.9)) == ["b", "d"]
    assert median_and_worst(dice("a", 0.5)) == ["a"] and median_and_worst([]) == []
    assert median_and_worst(dice("a", 0.5, float("nan")) + dice("b", float("nan"))) == ["a"]


class Negative(Alignment):
    """Translates to the negative, and back to the half of it; certain where the image is bright."""

    def __init__(self, translates, returns):
        torch.nn.Module.__init__(self)
        self.translates, self.returns = translates, returns

    def optimizers(self):
        return {}

    def stages(self):
        return []

    def predict(self, x_t):
        return torch.cat([torch.where(x_t > 0, 50.0, 0.0), torch.zeros_like(x_t).repeat(1, 4, 1, 1)], 1)

    def as_source(self, x_t):
        return -x_t if self.translates else None

    def as_target(self, x_s):
        return x_s / 2 if self.returns else None


@pytest.fixture
def target(prepared):
    return Prepared.open(prepared / "ct.h5")


def test_the_slice_of_a_case_has_most_organs_and_among_those_the_largest_smallest_one(target):
    labels = target.label_slices("ct_3")
    organs = [len(np.unique(each[each > 0])) for each in labels]
    assert organs[slice_to_show(target, "ct_3")] == max(organs) == 4
    assert first_cases(target) == ["ct_3"]


def test_a_run_keeps_entropy_translation_and_the_way_back_of_the_slice_that_is_shown(target, tmp_path):
    keep_slices(Negative(True, True), Answers(tmp_path), target, CPU, [])
    z = slice_to_show(target, "ct_3")
    image = target.image_row("ct_3", z)[0].astype(np.float32)
    found = panel(target, "ct_3", {"A": Answers(tmp_path)})
    assert (found.case, found.name) == ("ct_3", f"ct_3, slice {z}") and (found.image == image).all()
    # A byte has 255 steps from -1 to 1.
    assert np.abs(found.translations["A"] + image).max() < 1 / 127.5
    assert np.abs(found.returns["A"] + image / 2).max() < 1 / 127.5
    assert (found.entropies["A"] == (image <= 0)).all()
    assert found.predictions == {}  # There is no predictions/ct_3.nii.gz.
    assert (tmp_path / "slices.npz").stat().st_size < 3 * 32 * 32 + 1000


def test_a_method_keeps_what_it_has(target, tmp_path):
    for name, translates, returns in (("none", False, False), ("one", True, False)):
        keep_slices(Negative(translates, returns), Answers(tmp_path / name), target, CPU, [])
    found = panel(target, "ct_3", {name: Answers(tmp_path / name) for name in ("none", "one", "nowhere")})
    assert set(found.entropies) == {"none", "one"} and set(found.translations) == {"one"} and not found.returns


def test_of_too_many_cases_the_median_the_worst_and_the_first_are_kept(target, tmp_path, monkeypatch):
    cases = tuple(target.case(name) for name in ("ct_1", "ct_2", "ct_3"))
    monkeypatch.setattr(target, "cases_in", lambda split: cases)
    monkeypatch.setattr(kept, "SLICES_KEPT", 2)
    keep_slices(
        Negative(False, False),
        Answers(tmp_path),
        target,
        CPU,
        dice("ct_1", 0.9) + dice("ct_2", 0.2) + dice("ct_3", 0.5),
    )
    with np.load(tmp_path / "slices.npz") as arrays:
        assert {name.partition("-")[0] for name in arrays} == {"ct_3", "ct_2"}


def test_a_trained_run_has_kept_its_slices(trained, prepared):
    found = panel(Prepared.open(prepared / "ct.h5"), "ct_3", {"W/o": Answers(trained)})
    assert set(found.predictions) == set(found.entropies) == {"W/o"} and not found.translations
    assert 0 <= found.entropies["W/o"].min() < found.entropies["W/o"].max() <= 1
