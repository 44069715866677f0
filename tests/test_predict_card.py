"""The JSON beside label maps: what made them of what, without a place or a date, and what they are not good for."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.torch import load_file

from attent_kit.data.phantom.write import in_phantom, write_phantom
from attent_kit.data.prepared.familiar import Familiar
from attent_kit.engine.apply.card import limits
from attent_kit.engine.apply.trained import read_domain
from attent_kit.engine.run.checkpoint import write_weights
from support.cases import AFFINE, contents
from support.commands import prepare_words, train_words
from support.stand_in import facts_of, greys, predict, save, stand_in_run, whole_run


def strict(path):
    """JSON as the standard has it."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def predicted(tmp_path):
    """A label map of 12 x 10 x 5 voxels of 2 x 2 x 5 mm, and what stands beside it."""
    run = stand_in_run(tmp_path / "run", 12, source={"domain": "mr", "modality": "mr", "cases": 4})
    image = save(tmp_path / "image.nii.gz", greys(), AFFINE)
    predict(run, image, tmp_path / "labels.nii.gz", maps=["entropy"])
    return run, image, strict(tmp_path / "labels.json")


def test_it_says_which_run_and_which_method_with_its_paper_and_options(predicted):
    run, _, card = predicted
    about = card["run"]
    assert (about["folder"], about["method"], about["paper"]) == ("run", "threshold", "nobody, nowhere")
    assert about["plugin"] == {"distribution": "attentkit-stand-in", "version": "1.2"}
    assert (about["seed"], about["steps"]) == (3, 7)
    assert about["weights"] == {"name": "segmentor.safetensors", "sha256": sha(run / "segmentor.safetensors")}
    assert about["config"] == {"seed": 3, "precision": "32-true", "alignment": {"name": "threshold"}}
    assert card["training"] == {
        "source": {"domain": "mr", "modality": "mr", "cases": 4, "data_sha256": "aa"},
        "target": {"domain": "ct", "modality": "ct", "cases": None, "data_sha256": "bb"},
        "target_labels_used": False,
        "phantom": [],
    }
    assert card["labels"] == {"background": 0, "middle": 1, "bright": 2}
    assert card["slices"] == {"size": 12, "pixel_mm": None, "channels": 1}
    assert card["intensity"] == {"kind": "window", "low": 0.0, "high": 200.0}
    assert card["computed_with"]["device"].startswith("cpu (") and card["computed_with"]["torch"]


def test_it_says_what_the_image_was_and_how_much_was_found(predicted):
    _, image, card = predicted
    array = greys()
    (found,) = card["images"]
    assert (found["name"], found["sha256"], found["kind"]) == ("image.nii.gz", sha(image), "NIfTI")
    assert (found["shape"], found["spacing_mm"], found["orientation"]) == ([12, 10, 5], [2.0, 2.0, 5.0], "RAS")
    assert found["origin_mm"] == [-31.0, -31.0, 10.0]
    assert found["outputs"] == {"labels": "labels.nii.gz", "entropy": "labels_entropy.nii.gz"}
    # A voxel is 2 * 2 * 5 mm = 0.02 ml.
    bright, middle = (array > 150).sum() * 0.02, ((array > 50) & (array < 150)).sum() * 0.02
    assert found["organs_ml"] == {"middle": pytest.approx(middle), "bright": pytest.approx(bright)}
    assert found["warnings"] == found["notes"] == []


def test_it_names_no_place_on_the_machine_and_no_time(predicted, tmp_path):
    run, image, _ = predicted
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(
        config.replace('"threshold"\n', '"threshold"\nnote = "/home/someone/weights.pth"\n')
    )
    weights = run / "segmentor.safetensors"
    write_weights(weights, load_file(weights), facts_of(run))
    predict(run, image, tmp_path / "again.nii.gz")
    text = (tmp_path / "again.json").read_text()
    assert str(tmp_path) not in text and "someone" not in text and "somewhere" not in text
    assert strict(tmp_path / "again.json")["run"]["config"]["alignment"]["note"] == "weights.pth"
    written = contents(tmp_path)
    predict(run, image, tmp_path / "again.nii.gz", overwrite=True)
    assert contents(tmp_path) == written


def test_of_a_folder_there_is_one_for_all(tmp_path):
    for n, name in enumerate(("b.nii.gz", "a.nii.gz")):
        save(tmp_path / "in" / name, greys(seed=n), AFFINE)
    predict(stand_in_run(tmp_path / "run", 12), tmp_path / "in", tmp_path / "out")
    card = strict(tmp_path / "out" / "prediction.json")
    assert [image["name"] for image in card["images"]] == ["a.nii.gz", "b.nii.gz"]
    assert [image["outputs"]["labels"] for image in card["images"]] == ["a.nii.gz", "b.nii.gz"]
    assert len({image["sha256"] for image in card["images"]}) == 2


def test_of_a_series_every_file_is_named_with_its_hash(tmp_path):
    pytest.importorskip("pydicom")
    from support.dicom_slices import write_series

    files = write_series(tmp_path / "in", names=["c", "e", "a", "d", "b"])
    predict(stand_in_run(tmp_path / "run", 12), tmp_path / "in", tmp_path / "l.nii.gz")
    card = strict(tmp_path / "l.json")
    (found,) = card["images"]
    assert found["files"] == {path.name: sha(path) for path in sorted(files)}
    assert found["sha256"] == hashlib.sha256("".join(sha(path) for path in files).encode()).hexdigest()
    assert (found["kind"], found["modality"], found["name"]) == ("DICOM series", "CT", "in")
    assert card["computed_with"]["pydicom"][0].isdigit()


def test_with_a_checkpoint_the_weights_are_those_of_all_networks(tmp_path):
    run = whole_run(tmp_path / "run", 12)
    predict(run, save(tmp_path / "i.nii.gz", greys(), AFFINE), tmp_path / "l.nii.gz")
    about = strict(tmp_path / "l.json")["run"]
    assert about["weights"] == {"name": "checkpoint.ckpt", "sha256": sha(run / "checkpoint.ckpt")}
    assert (about["method"], about["steps"]) == ("translating", 7)


# Limits


def domain(tmp_path, **more):
    return read_domain(stand_in_run(tmp_path / f"run{len(list(tmp_path.iterdir()))}", 12, **more) / "domain.json")


def test_the_limits_are_told_in_words(tmp_path):
    known = " ".join(limits(domain(tmp_path), target_labels_used=False))
    for words in (
        "For research only", "no one has validated it for clinical use", "Only middle, bright are labelled",
        "not calibrated", "No label of ct was used in training", "one axial slice of 12 x 12 pixels",
    ):  # fmt: skip
        assert words in known
    assert "phantom" not in known
    assert "No label of" not in " ".join(limits(domain(tmp_path), target_labels_used=True))
    assert "3 neighbouring axial slices" in " ".join(limits(domain(tmp_path, channels=3), False))


def test_the_number_of_training_cases_is_told_where_it_is_known(tmp_path):
    known = limits(domain(tmp_path, source={"domain": "mr", "modality": "mr", "cases": 4}), False)
    assert any(sentence.startswith("Its training data were 4 case(s) of mr: other scanners") for sentence in known)
    training = Familiar(11, (1, 2), (1, 2), (3, 5), (-1, -1), ((-0.9, 0.2),) * 5).to_dict()
    known = limits(domain(tmp_path, source={"domain": "mr", "cases": 4}, training=training), False)
    assert any(
        sentence.startswith("Its training data were 4 case(s) of mr and 11 case(s) of ct:") for sentence in known
    )


def test_a_run_on_a_phantom_says_so_first(tmp_path):
    known = limits(domain(tmp_path, phantom=["mr", "ct"]), False)
    assert known[0].startswith("Trained on a phantom (mr, ct), not on patients")


def test_where_a_phantom_lies_is_told_by_its_facts_alone(tmp_path):
    write_phantom(tmp_path / "phantom")
    assert in_phantom(tmp_path / "phantom" / "ct" / "images") and not in_phantom(tmp_path)
    (tmp_path / "phantom.toml").write_text('size = "small"\n')
    assert not in_phantom(tmp_path)


def test_that_cases_are_a_phantom_goes_from_the_folder_to_the_run(attentkit, volumes, prepared, tmp_path):
    (tmp_path / "phantom.toml").write_text('kind = "attent-kit phantom"\n')
    for modality in ("ct", "mr"):
        place = tmp_path / "volumes" / modality
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(volumes / modality)
    assert attentkit(*prepare_words(tmp_path / "volumes" / "ct", tmp_path / "ct.h5", "ct")).code == 0
    assert attentkit(*prepare_words(volumes / "mr", tmp_path / "mr.h5", "mr")).code == 0
    assert attentkit(*train_words(tmp_path, tmp_path / "run")).code == 0
    kept = strict(tmp_path / "run" / "domain.json")
    assert kept["phantom"] == ["ct"]
    assert kept["source"] == {"domain": "mr", "modality": "mr", "cases": 1}
    assert np.isclose(kept["training"]["pixel_mm"], 2).all()
