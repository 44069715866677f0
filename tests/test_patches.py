"""Volumes: patches that are drawn for training, windows that slide in prediction, and whole runs of a segmentor of volumes."""

from copy import deepcopy

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attent_kit.build import Builder, configure
from attent_kit.cli import run
from attent_kit.config import validate
from attent_kit.data.prepared.augment import Augmentation, random_affine, random_bend, warp
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.patches import corner_of, grid_of, patch_batches
from attent_kit.engine.apply.export import ExportOptions, export_run
from attent_kit.engine.apply.model import open_model
from attent_kit.engine.apply.packing import pack_run
from attent_kit.engine.compare.cells import refuse_what_cannot_run, run_cells
from attent_kit.engine.compare.content import located
from attent_kit.engine.compare.costs import measure_costs, read_costs
from attent_kit.engine.compare.price import price
from attent_kit.engine.compare.suite import Suite, expand
from attent_kit.engine.compare.watcher import CellWatcher
from attent_kit.engine.run.assemble import setup
from attent_kit.engine.run.device import launch
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.run.windows import gaussian_weights, segment_windows, windows
from attent_kit.engine.study.shift import Meter, shift_of_comparison
from attent_kit.engine.train.train import TrainOptions, TrainWatcher, train
from attent_kit.errors import ConfigError, DataError
from attent_kit.interfaces import Patch, Task
from attent_kit.mixing import blocks, half_of_the_classes, jittered, mixing_map, painted
from attent_kit.objectives import (
    IGNORE,
    balanced_cross_entropy,
    class_of,
    cross_entropy,
    cross_entropy_map,
    dice_loss,
    exclusion_loss,
    labels_where,
    may_be,
)
from attent_kit.registry import Component
from attent_kit.report.scores import read_scores
from attent_kit.report.selection import read_selection
from attent_kit.testing import Subject
from attent_kit.testing.volumes import OfVolumes
from attent_kit.testing.waiting import capturable_as_declared
from support.commands import prepare_words
from support.messages import quotes
from support.small_runs import REGISTRY, Killed, equal, weights, with_components

CPU = torch.device("cpu")
STILL = Augmentation(rotation=0, scale=0, shift=0)
PATCH = Patch((3, 16, 20))
THEIRS = with_components(REGISTRY, ("segmentors", "of_volumes", OfVolumes))
SMALL = {"segmentor": "of_volumes", "segment_steps": 4, "segment_batch_size": 2}


# Training


@pytest.fixture(scope="module")
def domains(prepared):
    return Prepared.open(prepared / "mr.h5"), Prepared.open(prepared / "ct.h5")


def batches(domains, patch=PATCH, augmentation=STILL, seed=0, asked=False, resident=True):
    return patch_batches(domains, patch, augmentation, seed, CPU, asked, resident)


def test_a_patch_that_is_not_moved_is_a_part_of_the_volume_and_its_labels(domains):
    source, _ = domains
    (case,) = source.ids("train")
    x, y = source.volume(case).astype(np.float32), source.label_slices(case)
    made = batches(domains, asked=True)
    corners = set()
    for step in range(6):
        batch = made.batch(step, 2)
        assert batch.x_s.shape == batch.x_t.shape == (2, 1, 3, 16, 20) and batch.y_s.shape == batch.y_t.shape == (
            2,
            3,
            16,
            20,
        )
        for image, labels in zip(batch.x_s[:, 0].numpy(), batch.y_s.numpy(), strict=True):
            found = [
                (z, r, c)
                for z in range(len(x) - 2) for r in range(32 - 15) for c in range(32 - 19)
                if np.allclose(x[z : z + 3, r : r + 16, c : c + 20], image, atol=1e-5)
            ]  # fmt: skip
            assert found, "the patch is not a part of the volume"
            assert any(np.array_equal(y[z : z + 3, r : r + 16, c : c + 20], labels) for z, r, c in found)
            corners |= {*found}
    assert len(corners) > 6


def test_a_batch_is_a_function_of_seed_and_step_and_the_same_whether_volumes_are_kept_or_read(domains):
    moved = Augmentation(elastic=0.02)
    one, read = (batches(domains, augmentation=moved, asked=True, resident=kept) for kept in (True, False))
    later = one.batch(5, 2)
    assert equal(one.batch(3, 2), read.batch(3, 2)) and equal(later, read.batch(5, 2))
    assert not equal(one.batch(3, 2), later)
    assert not equal(later, batches(domains, augmentation=moved, asked=True, seed=1).batch(5, 2))


def test_target_labels_are_not_even_read_unless_they_are_asked_for(prepared, domains, monkeypatch):
    target = Prepared.open(prepared / "ct.h5")

    def forbidden(*arguments):
        raise AssertionError("target labels were read")

    for name in ("labels", "label_slices", "label_row", "truth"):
        monkeypatch.setattr(target, name, forbidden)
    assert batches((domains[0], target)).batch(0, 2).y_t is None
    with pytest.raises(AssertionError, match="target labels were read"):
        batches((domains[0], target), asked=True)


def test_a_third_of_the_patches_lie_around_an_organ_drawn_at_random_and_all_inside():
    rare, common = np.array([[2, 3, 60]]), np.stack(np.meshgrid(range(9), range(40, 60), range(9), indexing="ij"), -1)
    generator = torch.Generator().manual_seed(0)
    patch = Patch((3, 9, 11), foreground=0.5)
    corners = [corner_of((9, 64, 64), [rare, common.reshape(-1, 3)], patch, generator) for _ in range(2000)]
    assert all(0 <= z <= 6 and 0 <= r <= 55 and 0 <= c <= 53 for z, r, c in corners)
    around_the_rare = np.mean([corner == (1, 0, 53) for corner in corners])
    assert 0.2 < around_the_rare < 0.3, "of half of the patches one organ in two is the rare one"
    without = [corner_of((9, 64, 64), [], patch, generator) for _ in range(2000)]
    assert {z for z, _, _ in without} == {*range(7)} and {c for _, _, c in without} == {*range(54)}


def test_an_axis_shorter_than_the_patch_is_in_its_middle_and_its_edge_is_repeated(domains):
    assert corner_of((4, 32, 32), [], Patch((9, 40, 32)), torch.Generator()) == (-2, -4, 0)
    patch = Patch((8, 40, 32))
    source, _ = domains
    (case,) = source.ids("train")
    volume = source.volume(case).astype(np.float32)
    lacking = 8 - len(volume)
    assert lacking > 0
    expected = np.pad(volume, [(lacking // 2, lacking - lacking // 2), (4, 4), (0, 0)], mode="edge")
    assert np.allclose(batches(domains, patch).batch(0, 1).x_s[0, 0], expected, atol=1e-5)


def test_slices_of_a_patch_as_large_as_they_are_move_as_slices_do():
    options, generator = Augmentation(elastic=0.03), torch.Generator().manual_seed(1)
    affine, bend = random_affine(2, options, generator), random_bend(2, options, generator)
    x, y = torch.rand(2, 3, 32, 32), torch.randint(5, (2, 3, 32, 32))
    grid = grid_of([(0, 0), (0, 0)], (32, 32), (32, 32), affine, bend)
    moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    for z in range(3):
        expected, _ = warp(x[:, z : z + 1], y[:, z], affine, bend)
        assert torch.allclose(moved[:, z : z + 1], expected, atol=1e-5)


# Prediction


def grey_as_logits(x):
    """Two classes, by the grey value alone."""
    return torch.cat([-x, x], 1)


class Greys(torch.nn.Module):
    """What `segment_windows` asks of a method."""

    task = type("Task", (), {"classes": 2})


@pytest.mark.parametrize("shape", [(11, 40, 30), (2, 40, 9), (4, 16, 16)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
def test_what_depends_on_a_voxel_alone_is_the_same_through_windows(shape, overlap):
    volume = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float16)
    found = segment_windows(grey_as_logits, Greys(), Patch((4, 16, 16), overlap=overlap), volume[:, None], CPU)
    expected = grey_as_logits(torch.from_numpy(volume.astype(np.float32))[None, None]).softmax(1)[0]
    assert found.shape == (2, *shape) and np.allclose(found, expected, atol=1e-5)


def test_windows_cover_a_volume_and_overlap_by_what_is_asked_or_more():
    starts = sorted({window[1].start for window in windows((4, 100, 16), Patch((4, 32, 16), overlap=0.5))})
    assert starts[0] == 0 and starts[-1] == 68 and max(np.diff(starts)) <= 16
    assert len([*windows((4, 16, 16), Patch((4, 16, 16)))]) == 1


def test_the_middle_of_a_window_counts_most_and_nothing_counts_nothing():
    weight = gaussian_weights((5, 16, 17))
    assert weight[2, 7, 8] == weight[2, 8, 8] == weight.max() and (weight > 0).all()
    # One deviation from the middle of 17 is 17 / 8 pixels: exp(-1/2) between pixels 10 and 11.
    assert weight[2, 7, 10] > np.exp(-0.5) * weight.max() > weight[2, 7, 11]


# Losses and views


def flat(x):
    """D and H as one."""
    return x if x is None else x.flatten(-3, -2)


@pytest.mark.parametrize("partial", [False, True])
def test_losses_of_volumes_are_those_of_the_same_voxels_in_slices(partial):
    torch.manual_seed(0)
    logits, y = torch.randn(2, 4, 3, 5, 6), torch.randint(4, (2, 3, 5, 6))
    y[0, 0, 0] = IGNORE
    if partial:
        unknown = torch.tensor([[False, False, False, True], [False] * 4])
        y = may_be(y.where((y < 3) | (y == IGNORE), 0), unknown)
        assert torch.equal(flat(y), may_be(flat(class_of(y)), unknown))
    for loss in (cross_entropy, balanced_cross_entropy, dice_loss, exclusion_loss):
        assert torch.allclose(loss(logits, y), loss(flat(logits), flat(y)), atol=1e-6), loss.__name__
    assert torch.allclose(flat(cross_entropy_map(logits, y)), cross_entropy_map(flat(logits), flat(y)), atol=1e-6)
    assert torch.equal(flat(class_of(y)), class_of(flat(y)))
    mask, other = torch.rand(2, 3, 5, 6) < 0.5, torch.randint(4, (2, 3, 5, 6))
    assert torch.equal(flat(labels_where(mask, y, other)), labels_where(flat(mask), flat(y), flat(other)))


def test_views_of_volumes_keep_their_shape_and_are_of_one_draw_each():
    torch.manual_seed(0)
    x = torch.rand(2, 1, 6, 16, 16) * 2 - 1
    y = painted(x, 4, 2)
    assert y.shape == x.shape and torch.allclose(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-4)
    assert not torch.allclose(y, x, atol=1e-2)
    m = mixing_map(x, 4)
    assert m.shape == x.shape and 0 <= m.min() < m.max() <= 1 and (m.diff(dim=2) != 0).any()
    mask = blocks(x, 4, 0.5)
    assert mask.shape == x.shape
    cubes = mask.unfold(2, 2, 4).unfold(3, 4, 4).unfold(4, 4, 4).flatten(-3)
    assert (cubes.all(-1) | ~cubes.any(-1)).all()
    change = jittered(x / 2, 0.1) - x / 2
    assert change.shape == x.shape
    labels = torch.randint(5, (2, 6, 16, 16))
    assert half_of_the_classes(labels, 5).shape == labels.shape


# Runs


def settings(prepared, alignment="source_only", **more):
    data = {"source": str(prepared / "mr.h5"), "target": str(prepared / "ct.h5"), **more.pop("data", {})}
    method = {"name": alignment, **SMALL, **more}
    given = {"alignment": method, "data": data, "save_seconds": 0.0, "snapshots": 2, "precision": "32-true"}
    return run_settings(given, THEIRS)


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes") / "run"
    scores = train(settings(prepared), folder, THEIRS, "cpu")
    assert scores
    return folder


def test_a_run_of_volumes_is_scored_selected_shown_and_predicts_as_it_did(finished, volumes, tmp_path):
    assert {score.case for score in read_scores(finished / "scores.csv")} == {"ct_3"}
    assert {row.step for row in read_selection(finished / "selection.csv")} == {2, 4}
    with np.load(finished / "slices.npz") as kept:
        assert {kept[name].shape for name in kept} == {(32, 32)}
    image = volumes / "ct" / "images" / "ct_3.nii.gz"
    found = open_model(finished, THEIRS, "cpu").predict(image)
    assert np.array_equal(found.labels.dataobj, nib.load(finished / "predictions" / "ct_3.nii.gz").dataobj)
    assert any("6 axial slices of 32 x 32 pixels" in sentence for sentence in found.card["limits"])
    pack_run(finished, tmp_path / "run.zip", THEIRS)
    packed = open_model(tmp_path / "run.zip", THEIRS, "cpu").predict(image)
    assert np.array_equal(packed.labels.dataobj, found.labels.dataobj)
    with pytest.raises(ConfigError, match="windows that slide"):
        export_run(finished, tmp_path / "m.pt2", THEIRS, ExportOptions(format="torch-export"))


def test_a_run_of_volumes_goes_on_to_the_same_bits_after_a_kill(prepared, finished, tmp_path):
    def kill(progress):
        if progress.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(settings(prepared), tmp_path / "run", THEIRS, "cpu", TrainOptions(), TrainWatcher(stepped=kill))
    train(settings(prepared), tmp_path / "run", THEIRS, "cpu")
    assert equal(weights(tmp_path / "run"), weights(finished))


def test_the_upper_bound_takes_volumes_too(prepared, tmp_path):
    assert train(settings(prepared, "supervised"), tmp_path / "run", THEIRS, "cpu")


@pytest.mark.parametrize("alignment", ["attent", "cyclegan", "entropy"])
def test_a_method_of_slices_refuses_them_before_anything_is_written(prepared, tmp_path, alignment):
    given = {"name": alignment, "segmentor": "of_volumes"}
    data = {"source": str(prepared / "mr.h5"), "target": str(prepared / "ct.h5")}
    asked = run_settings({"alignment": given, "data": data}, THEIRS)
    with pytest.raises(ConfigError, match=f"'{alignment}'.*'of_volumes'.*volumes.*source_only.*supervised"):
        train(asked, tmp_path / "run", THEIRS, "cpu")
    assert not (tmp_path / "run" / "config.toml").exists()


def test_neighbours_as_channels_and_volumes_do_not_go_together(prepared, tmp_path):
    with pytest.raises(ConfigError, match="'of_volumes'.*3 channels.*--channels 1"):
        train(settings(prepared, data={"channels": 3}), tmp_path / "run", THEIRS, "cpu")


def test_volumes_of_which_slices_are_left_out_are_refused(volumes, prepared, tmp_path):
    assert run(prepare_words(volumes / "mr", tmp_path / "mr.h5", "mr", "--foreground-only")) == 0
    asked = settings(prepared, data={"source": str(tmp_path / "mr.h5")})
    with pytest.raises(DataError, match="--foreground-only.*mr_1.*again without it"):
        train(asked, tmp_path / "run", THEIRS, "cpu")
    assert not (tmp_path / "run" / "config.toml").exists()


@pytest.mark.parametrize(("segmentor", "channels", "said"), [("of_volumes", 1, 1), ("smp", 3, 1), ("smp", 1, 0)])
def test_slices_of_other_distances_are_warned_of_where_several_are_seen(
    volumes, prepared, tmp_path, segmentor, channels, said
):
    for kind in ("images", "labels"):
        for path in (volumes / "mr" / kind).iterdir():
            image = nib.load(path)
            affine = image.affine @ np.diag([1, 1, 3, 1])
            (tmp_path / "mr" / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), tmp_path / "mr" / kind / path.name)
    assert run(prepare_words(tmp_path / "mr", tmp_path / "mr.h5", "mr")) == 0
    warned = []

    def stop(name, steps):
        raise Killed

    slices = {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    asked = settings(
        prepared,
        data={"source": str(tmp_path / "mr.h5"), "channels": channels},
        segmentor={"name": segmentor, **(slices if segmentor == "smp" else {})},
    )
    with pytest.raises(Killed):
        train(asked, tmp_path / "run", THEIRS, "cpu", watcher=TrainWatcher(opened=stop, warned=warned.append))
    assert len(warned) == said
    for sentence in warned:
        assert quotes(
            sentence, "5 mm apart in", "ct.h5", "15 mm apart in", str(tmp_path / "mr.h5"), "3.0", "--channels 1"
        )


# The conformance kit


class ReadsVolumesBack(REGISTRY.alignment("source_only")):
    """Waits for the device where it sees volumes, and nowhere else."""

    def segment(self, batch, update):
        if batch.x_s.ndim == 5:
            batch.x_s.sum().item()
        return super().segment(batch, update)


def test_what_cannot_be_captured_of_volumes_alone_is_found():
    def subject(method):
        return Subject.small(Component("alignments", "reads", method, "p", "d", "0"), REGISTRY)

    with pytest.raises(AssertionError, match=r"stage 'segment' of volumes: test_patches.py:.*reads a value back"):
        capturable_as_declared(subject(ReadsVolumesBack))
    capturable_as_declared(subject(REGISTRY.alignment("source_only")))


# A comparison


def suite_of(prepared, *rows):
    domains = {name: str(prepared / f"{name}.h5") for name in ("mr", "ct")}
    small = {**SMALL, "segment_steps": 2}
    given = {"name": "s", "directions": ["mr2ct"], "rows": rows, "domains": domains, "options": small}
    return validate(Suite, given, THEIRS)


def test_a_row_of_volumes_is_priced_trained_and_its_cost_measured_beside_others(prepared, tmp_path):
    slices = {
        "segmentor": {"name": "smp", "encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    }
    rows = [{"label": "3-D", "alignment": "source_only"}]
    rows.append({"label": "2-D", "alignment": "source_only", "options": slices})
    suite = suite_of(prepared, *rows)
    cells = located(expand(suite, THEIRS, suite.domains, tmp_path), THEIRS)
    assert refuse_what_cannot_run(cells, THEIRS) == {"3-D": 2, "2-D": 2}
    priced = price(suite, cells, THEIRS, ("cpu",), lambda row, done, total: None)
    assert [cost.error for cost in priced.cells] == [None, None]
    assert run_cells(cells, THEIRS, tmp_path, "cpu", CellWatcher()) == []
    measure_costs(cells, THEIRS, "cpu", lambda row, done, total: None)
    volumes, plain = read_costs(tmp_path, ["3-D", "2-D"])
    # Convolutions of 27 weights: 4 maps at half of 6 x 32 x 32 voxels, then 5 classes of 4 maps, for each of 6 slices.
    assert volumes.multiply_adds == (27 * 4 + 4 * 5) * (3 * 16 * 16) // 6
    assert volumes.image == plain.image == (1, 32, 32)


def test_a_row_whose_method_takes_slices_alone_is_named(prepared, tmp_path):
    suite = suite_of(prepared, {"label": "AttENT in 3-D", "alignment": "attent"})
    cells = located(expand(suite, THEIRS, suite.domains, tmp_path), THEIRS)
    with pytest.raises(ConfigError, match="row 'AttENT in 3-D': 'attent' does not take the segmentor 'of_volumes'"):
        refuse_what_cannot_run(cells, THEIRS)


def test_the_shift_of_a_run_of_volumes_is_measured_in_all_spaces(finished):
    found = shift_of_comparison(finished, Meter(THEIRS, "cpu", slices=4), lambda what, done, total: None)
    assert {row.space for row in found.rows if row.when == "after"} == {"pixels", "features", "outputs", "entropy"}


def test_on_a_processor_convolutions_of_volumes_compute_in_float32_in_a_copy_too():
    """Their gradients in bfloat16 are not to be trusted there."""
    method = REGISTRY.alignment("source_only")
    config = configure(method, {"segmentor": "of_volumes"}, THEIRS)
    alignment = method(config, Builder(THEIRS, Task(), seed=0), Task())
    setup(alignment, launch("cpu", "bf16-mixed"))
    copied, seen = deepcopy(alignment), []
    with torch.no_grad():
        copied.S.module.body.weight.zero_()
        copied.S.module.body.bias.zero_()
    for one in (alignment, copied):
        one.S.module.body.register_forward_hook(lambda _, __, answer: seen.append(answer))
        one.S(torch.rand(1, 1, 6, 32, 32))
    assert [answer.dtype for answer in seen] == [torch.float32] * 2
    assert seen[0].any() and not seen[1].any()
