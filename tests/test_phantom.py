import errno
import math
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attent_kit.data.phantom import (
    ORGANS,
    SIZES,
    PhantomCase,
    PhantomOptions,
    PhantomSize,
    ct,
    mr,
    phantom_case,
    write_phantom,
)
from attent_kit.data.phantom.case import majority, stored_as, voxel_means
from attent_kit.data.phantom.patient import EVENT_EVERY, random_patient
from attent_kit.data.phantom.shapes import Ellipsoid, Tube, smooth_noise, spline, turn
from attent_kit.data.phantom.write import in_phantom
from attent_kit.data.workers import WorkerEnded
from attent_kit.errors import ConfigError, DataError, RunError

COARSE = PhantomSize(48, (12, 0, 0), (12, 0, 0), (8.0, 8.0), (8.0, 8.0))
TINY = PhantomSize(16, (1, 0, 1), (1, 0, 1), (20.0, 20.0), (20.0, 20.0), (0, 0), (1, 1), (1, 1))


@pytest.fixture(scope="module")
def cases() -> dict[tuple[str, int], PhantomCase]:
    return {(m, n): phantom_case(m, n, COARSE, seed=0) for m in ("ct", "mr") for n in range(1, 7)}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", TINY)


def centroids(cases: Iterable[PhantomCase]) -> list[tuple[PhantomCase, dict[str, np.ndarray]]]:
    """World position in mm of each organ of each case; every organ but those that a patient has lost."""
    found = []
    for case in cases:
        centres = {}
        for number, organ in enumerate(ORGANS, start=1):
            if len(voxels := np.argwhere(case.labels == number)):
                centres[organ] = nib.affines.apply_affine(case.affine, voxels.mean(0))
        assert set(centres) == set(ORGANS) - set(case.facts["missing"])
        found.append((case, centres))
    return found


def median(case: PhantomCase, organ: str) -> float:
    inside = case.image[case.labels == ORGANS.index(organ) + 1]
    return float(np.median(inside)) if inside.size else math.nan


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Anatomy


def test_the_liver_and_right_kidney_are_on_the_patients_right_and_the_others_on_the_left(cases):
    sides = {"liver": 1, "right kidney": 1, "left kidney": -1, "spleen": -1}
    for case, centres in centroids(cases.values()):
        for organ, center in centres.items():
            # RAS: +x is the patient's right, and the spine is near x = 0.
            assert 30 < sides[organ] * center[0] < 145, (case.codes, organ, center)


def test_the_axes_are_stored_as_the_affine_says(cases):
    stored = {case.codes for case in cases.values()}
    assert stored == {"RAS", "LAS", "LPS"}
    for case in cases.values():
        # nibabel names the side an axis runs towards with the patient lying in RAS+ space.
        assert "".join(nib.aff2axcodes(case.affine)) == case.codes


def test_the_liver_lies_in_front_of_the_spleen_and_above_the_kidneys(cases):
    compared = 0
    for _, centres in centroids(cases.values()):
        liver = centres.pop("liver")
        compared += len(centres)
        for organ, center in centres.items():
            if organ == "spleen":
                assert liver[1] > center[1] + 15
            else:
                assert liver[2] > center[2] + 10
    assert compared >= 3 * len(cases) - 1, "one organ at most is missing"


@pytest.mark.parametrize(
    ("organ", "lowest", "highest"),
    [("liver", 900, 2300), ("right kidney", 95, 290), ("left kidney", 95, 290), ("spleen", 80, 320)],
)
def test_organs_have_the_volume_of_an_adults(cases, organ, lowest, highest):
    volumes = []
    for case in cases.values():
        voxel = abs(np.linalg.det(case.affine[:3, :3])) / 1000
        ml = voxel * np.count_nonzero(case.labels == ORGANS.index(organ) + 1)
        assert case.facts["organ_ml"][organ] == pytest.approx(ml, abs=0.1)
        if organ not in case.facts["missing"] + case.facts["shrunken"]:
            volumes.append(ml)
    assert lowest < min(volumes) and max(volumes) < highest
    assert max(volumes) / min(volumes) > 1.1


def test_no_organ_is_cut_by_the_top_or_the_bottom_of_the_volume(cases):
    for case in cases.values():
        assert not case.labels[:, :, [0, -1]].any()


def test_one_patient_in_twelve_has_lost_an_organ_and_has_no_label_of_it():
    patients = {n: random_patient("mr", n, seed=0).missing for n in range(1, 13)}
    (number,) = (n for n, missing in patients.items() if missing)
    (organ,) = patients[number]
    case = phantom_case("mr", number, COARSE, seed=0)
    present = set(np.unique(case.labels)) - {0}
    assert present == {1, 2, 3, 4} - {ORGANS.index(organ) + 1}
    assert case.facts["missing"] == [organ] and case.facts["organ_ml"][organ] == 0


@pytest.mark.parametrize("name", ["small", "medium", "full"])
def test_at_most_one_test_patient_in_twelve_has_lost_an_organ(name):
    size = SIZES[name]
    for seed in range(40):
        for modality, count in (("ct", size.ct_patients), ("mr", size.mr_patients)):
            test = [n for n in range(1, count + 1) if size.split(modality, n) == "test"]
            assert sum(bool(random_patient(modality, n, seed).missing) for n in test) <= -(-len(test) // EVENT_EVERY)


def test_the_split_counts_patients_from_the_first():
    size = PhantomSize(16, mr=(2, 1, 1), ct=(1, 0, 2), mr_spacing_z=(9, 9), ct_spacing_z=(9, 9))
    assert [size.split("mr", n) for n in (1, 2, 3, 4)] == ["train", "train", "val", "test"]
    assert [size.split("ct", n) for n in (1, 2, 3)] == ["train", "test", "test"]


def test_no_patient_is_in_both_domains():
    scales = {tuple(random_patient(m, n, seed=0).scale) for m in ("ct", "mr") for n in range(1, 21)}
    assert len(scales) == 40


# Images


def test_ct_is_in_hounsfield_units(cases):
    for (modality, _), case in cases.items():
        if modality == "ct":
            assert case.image.dtype == np.int16 and case.image.min() == -1000
            assert 70 < median(case, "liver") < 135
            fat = case.image[(case.image > -140) & (case.image < -50)]
            assert -110 < np.median(fat) < -80


def test_in_t2_spir_the_spleen_and_the_kidneys_are_brighter_than_the_liver(cases):
    for (modality, _), case in cases.items():
        if modality == "mr":
            assert case.image.dtype == np.int16 and case.image.min() >= 0
            others = [median(case, organ) for organ in ORGANS[1:]]
            assert np.nanmin(others) > 1.15 * median(case, "liver")


def test_fat_suppression_leaves_fat_darker_than_the_liver():
    tissue = np.full((4, 4, 4), mr.T.FAT)
    tissue[2:] = mr.T.LIVER
    scan = mr.MrScan(2000, 65, fat_suppression=0.9, gain=1, noise=0, bias=0)
    clean = mr.signal(scan, tissue, np.zeros(tissue.shape, np.float32), np.random.default_rng(0))
    unsuppressed = mr.MrScan(2000, 65, fat_suppression=0.0, gain=1, noise=0, bias=0)
    bright = mr.signal(unsuppressed, tissue, np.zeros(tissue.shape, np.float32), np.random.default_rng(0))
    assert clean[:2].mean() < 0.5 * clean[2:].mean()
    assert bright[:2].mean() > bright[2:].mean()


def test_spin_echo_signal_halves_where_the_equation_says():
    # TR = T1 ln 2 leaves half of the magnetisation; TE = T2 ln 2 leaves half of the signal.
    assert mr.spin_echo(1.0, 1000.0, 80.0, tr=1000 * math.log(2), te=0) == pytest.approx(0.5)
    assert mr.spin_echo(1.0, 1000.0, 80.0, tr=1e9, te=80 * math.log(2)) == pytest.approx(0.5)


def test_ct_noise_has_the_wanted_strength_and_correlation():
    scan = ct.CtScan(enhancement=1, noise=20, oral_contrast=0, table_height=5)
    noise = (
        ct.acquire(scan, np.full((96, 96, 12), -500.0, np.float32), 1.5, np.random.default_rng(0))[24:72, 24:72] + 500.0
    )
    noise -= noise.mean()
    neighbours = (noise[1:] * noise[:-1]).mean() / noise.var()
    assert 0.38 < neighbours < 0.52
    assert 19 < noise.std() < 24


def test_noise_in_mr_is_rician():
    scan = mr.MrScan(2000, 65, 0.9, gain=1, noise=0.1, bias=0)
    air = mr.acquire(scan, np.zeros((48, 48, 8), np.float32), np.random.default_rng(0)).astype(float)
    # Without signal a Rician is a Rayleigh distribution: mean / SD = sqrt(pi / (4 - pi)) = 1.913.
    assert air.mean() / air.std() == pytest.approx(1.913, abs=0.05)


def test_organs_are_textured(cases):
    for (modality, _), case in cases.items():
        liver = case.image[case.labels == 1].astype(float)
        assert liver.std() > (10 if modality == "ct" else 0.05 * liver.mean())


# Grid


def test_a_voxel_is_the_mean_of_its_points_and_takes_the_label_of_most():
    fine = np.array([0, 1, 1, 1, 0, 0, 0, 2], np.uint8).reshape(2, 2, 2)
    assert voxel_means(fine, (1, 1, 1)).item() == 5 / 8
    assert majority(fine, (1, 1, 1)).item() == 0  # four points of background, three of the liver
    fine[0, 0, 0] = 1
    assert majority(fine, (1, 1, 1)).item() == 1
    assert voxel_means(np.arange(4.0).reshape(4, 1, 1), (2, 1, 1)).ravel().tolist() == [0.5, 2.5]


@pytest.mark.parametrize("points", [(1, 1, 1), (2, 2, 2), (2, 2, 3), (1, 1, 2)])
def test_the_mean_of_points_is_numpys_to_the_bit(points):
    shape = (5, 4, 3)
    fine = np.random.default_rng(0).normal(0, 300, [n * p for n, p in zip(shape, points, strict=True)])
    fine = fine.astype(np.float32)
    (x, y, z), (a, b, c) = shape, points
    assert np.array_equal(voxel_means(fine, shape), fine.reshape(x, a, y, b, z, c).mean((1, 3, 5), dtype=np.float32))


def test_reversing_an_axis_moves_no_voxel_in_the_world():
    image = np.zeros((3, 4, 5), np.int16)
    image[0, 1, 2] = 7
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    stored, _, reversed_affine = stored_as("LPS", image, image, affine)
    # Index 0 of 3 becomes 2, index 1 of 4 becomes 2, and both stand for x = 0 mm, y = 3 mm, z = 8 mm.
    assert np.argwhere(stored == 7).tolist() == [[2, 2, 2]]
    assert (reversed_affine @ [2, 2, 2, 1]).tolist() == [0, 3, 8, 1]


def test_an_ellipsoid_is_one_on_its_surface():
    x, y, z = (np.array([v], np.float32) for v in (1.0, 2.0, 7.0))
    assert Ellipsoid((1, 2, 3), (5, 5, 4)).level(x, y, z) == pytest.approx(1)
    # Turned by 90 degrees about z, the long axis runs along y.
    turned = Ellipsoid((0, 0, 0), (10, 2, 2), turn(about_z=90))
    assert turned.level(*(np.array([v], np.float32) for v in (0, 10, 0))) == pytest.approx(1, abs=1e-5)
    assert np.allclose(turned.bounds()[1], [2, 10, 2])


def test_a_tube_narrows_linearly():
    tube = Tube([(0, 0, 0), (0, 0, 10)], [4, 2])
    # Half-way the radius is 3, so 6 mm away is level 2; 2 mm beyond the end is on the cap.
    assert tube.level(*(np.array([v], np.float32) for v in (6, 0, 5))) == pytest.approx(2)
    assert tube.level(*(np.array([v], np.float32) for v in (0, 0, 12))) == pytest.approx(1)
    assert np.array(tube.bounds()).tolist() == [[-4, -4, -4], [4, 4, 12]]


def test_a_spline_through_equal_values_is_that_value():
    assert np.allclose(spline(np.full((2, 3, 4), 5.0, np.float32), (7, 9, 3)), 5)


def test_smooth_noise_has_unit_variance_and_no_jumps():
    field = smooth_noise(np.random.default_rng(0), (40, 40, 40), [4, 4, 4])
    assert abs(field.mean()) < 1e-4 and field.std() == pytest.approx(1, abs=1e-4)
    assert np.abs(np.diff(field, axis=0)).max() < 0.5


# Folder


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(tiny, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_phantom(tmp_path / name, PhantomOptions(size="tiny", seed=seed))
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[path] != c[path] for path in a)


def test_several_processes_write_the_bytes_of_one_and_need_no_guard_in_the_script_that_asks(tmp_path):
    script = """
import sys
from pathlib import Path
from attent_kit.data.phantom import SIZES, PhantomOptions, PhantomSize, volumes, write_phantom
SIZES["tiny"] = PhantomSize(16, (1, 0, 1), (1, 0, 1), (20.0, 20.0), (20.0, 20.0), (0, 0), (1, 1), (1, 1))
volumes.most_workers = lambda useful: int(sys.argv[2])
write_phantom(Path(sys.argv[1]), PhantomOptions(size="tiny"))
print("once")
"""
    (tmp_path / "script.py").write_text(script)
    for workers in ("1", "2"):
        words = [sys.executable, tmp_path / "script.py", tmp_path / workers, workers]
        assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "once\n"
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_process_that_is_ended_is_a_sentence_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    @contextmanager
    def ended(workers, shared):
        raise WorkerEnded("ended")
        yield

    monkeypatch.setattr("attent_kit.data.phantom.volumes.asking", ended)
    with pytest.raises(RunError, match="memory.*same command again"):
        write_phantom(tmp_path / "phantom", PhantomOptions(size="tiny"))
    assert list(tmp_path.iterdir()) == []


def test_the_folder_holds_pairs_and_the_facts_of_each(tiny, tmp_path):
    seen = []
    write_phantom(tmp_path / "deep" / "phantom", PhantomOptions(size="tiny"), lambda *event: seen.append(event))
    assert seen == [("", 0, 4), ("ct_01", 1, 4), ("ct_02", 2, 4), ("mr_01", 3, 4), ("mr_02", 4, 4)]
    facts = tomllib.loads((tmp_path / "deep/phantom/phantom.toml").read_text())
    assert facts["size"] == "tiny" and facts["seed"] == 0 and facts["organs"] == list(ORGANS)
    assert [case["split"] for case in facts["cases"].values()] == ["train", "test", "train", "test"]
    for name, case in facts["cases"].items():
        folder = tmp_path / "deep/phantom" / case["modality"]
        image, labels = (nib.load(folder / kind / f"{name}.nii.gz") for kind in ("images", "labels"))
        assert image.get_data_dtype() == np.int16 and labels.get_data_dtype() == np.uint8
        assert image.shape == labels.shape == tuple(case["shape"])
        assert np.allclose(image.header.get_zooms(), case["spacing_mm"], atol=1e-3)
        assert "".join(nib.aff2axcodes(image.affine)) == case["axes"]
        assert np.allclose(image.affine, labels.affine)


def test_an_interrupted_call_leaves_nothing(tiny, tmp_path):
    def interrupt(name: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "phantom", PhantomOptions(size="tiny"), interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_sentence_and_keeps_the_phantom_that_was_there(tiny, tmp_path, monkeypatch):
    out = tmp_path / "phantom"
    write_phantom(out, PhantomOptions(size="tiny", seed=0))
    before = contents(out)

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match="No space left on device.*attentkit phantom"):
        write_phantom(out, PhantomOptions(size="tiny", seed=1))
    assert contents(out) == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_phantom_is_replaced_and_an_empty_folder_filled(tiny, tmp_path):
    out = tmp_path / "phantom"
    out.mkdir()
    write_phantom(out, PhantomOptions(size="tiny", seed=0))
    write_phantom(out, PhantomOptions(size="tiny", seed=1))
    assert tomllib.loads((out / "phantom.toml").read_text())["seed"] == 1
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("stranger", ["thesis.docx", "ct/images/patient.nii.gz"])
def test_a_folder_that_holds_anything_else_is_refused_untouched(tiny, tmp_path, stranger):
    (tmp_path / stranger).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / stranger).write_text("years of work")
    with pytest.raises(DataError, match="Name another folder: `attentkit phantom"):
        write_phantom(tmp_path, PhantomOptions(size="tiny"))
    assert contents(tmp_path) == {stranger: b"years of work"}


def test_a_stranger_among_a_phantoms_images_is_not_lost(tiny, tmp_path):
    out = tmp_path / "phantom"
    write_phantom(out, PhantomOptions(size="tiny"))
    (out / "ct" / "images" / "mine.nii.gz").write_text("years of work")
    with pytest.raises(DataError, match="mine.nii.gz"):
        write_phantom(out, PhantomOptions(size="tiny"))
    assert (out / "ct" / "images" / "mine.nii.gz").read_text() == "years of work"


def test_a_torn_phantom_toml_is_one_sentence(tiny, tmp_path):
    write_phantom(tmp_path / "phantom", PhantomOptions(size="tiny"))
    torn = tmp_path / "phantom" / "phantom.toml"
    torn.write_bytes(torn.read_bytes()[:40])
    with pytest.raises(DataError, match="phantom.toml is damaged"):
        in_phantom(tmp_path / "phantom" / "ct" / "images")
    with pytest.raises(DataError, match="phantom.toml is damaged"):
        write_phantom(tmp_path / "phantom", PhantomOptions(size="tiny"))


def test_a_file_in_the_place_of_the_folder_is_refused(tiny, tmp_path):
    (tmp_path / "phantom").write_text("a file")
    with pytest.raises(DataError, match="is not a folder"):
        write_phantom(tmp_path / "phantom", PhantomOptions(size="tiny"))


def test_an_unknown_size_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="'smal'.*Did you mean 'small'.*small, medium, full"):
        PhantomOptions(size="smal")
