"""One run on several devices: every method ends in the weights of one process."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from attent_kit.engine.run import ranks
from attent_kit.errors import RunError
from attent_kit.registry import Component, Registry
from attent_kit.testing import Subject
from attent_kit.testing.processes import apart_in_two
from attent_kit.testing.volumes import with_volumes
from support.small_methods import ALIGNMENTS, REGISTRY, VARIANTS

DISTRIBUTIONS = sorted((Path(__file__).parent.parent / "plugins").glob("attentkit-*"))
OF_DISTRIBUTIONS = (
    ("alignments", "fda", "attentkit_fda.fda:FDA", {}),
    ("alignments", "best", "attentkit_recipes.best:BothStyles", {}),
    ("alignments", "gin", "attentkit_gin.gin:GIN", {"control_points": 4}),
    ("alignments", "cut", "attentkit_recipes.cut:CUT", {}),
    ("alignments", "mmd", "attentkit_mmd.mmd:MMD", {}),
    ("alignments", "selftrain", "attentkit_selftrain.selftrain:SelfTraining", {}),
    ("alignments", "translate_selftrain", "attentkit_recipes.translate_selftrain:TranslateSelfTraining", {}),
)
TAKE_VOLUMES = ("source_only", "supervised", "gin", "selftrain")
SEGMENTORS = ("deeplabv2", "resnet", "sifa")
MONAI_CLASSES = ("MonaiBasicUNet", "MonaiSegResNet", "MonaiSwinUNETR")
MONAI = ("monai_basic_unet", "monai_segresnet", "monai_swin_unetr")


@pytest.fixture
def registry(monkeypatch):
    """The built-ins, and what the distributions below plugins/ offer."""
    found = Registry()
    for component in REGISTRY:
        found.add(component)
    names = {(component.kind, component.name) for component in REGISTRY}
    for folder in DISTRIBUTIONS:
        monkeypatch.syspath_prepend(folder)
    offered = [each[:3] for each in OF_DISTRIBUTIONS]
    offered += [
        ("segmentors", name, f"attentkit_monai.segmentors:{cls}")
        for name, cls in zip(MONAI, MONAI_CLASSES, strict=True)
    ]
    for kind, name, target in offered:
        if (kind, name) not in names:
            found.add(Component(kind, name, target, "distribution", "distribution", "0"))
    return found


def ends_in_the_weights_of_one(registry, asked):
    """BatchNorm, dropout, image pools, teachers, gates and losses that are no means over slices among them."""
    subjects = [Subject.small(registry.find("alignments", name), registry, more) for name, more in asked]
    found = apart_in_two(subjects)
    assert len(found) == len(asked)
    assert [(one, apart) for one, apart in zip(asked, found, strict=True) if apart] == []


def test_every_method_ends_in_two_processes_in_the_weights_of_one(registry):
    of_distributions = {name: more for _, name, _, more in OF_DISTRIBUTIONS}
    ends_in_the_weights_of_one(registry, [*{**dict.fromkeys(ALIGNMENTS, {}), **of_distributions}.items()])


def test_patches_of_volumes_end_in_two_processes_in_the_weights_of_one(registry):
    subjects = [Subject.small(registry.find("alignments", name), registry) for name in TAKE_VOLUMES]
    of_volumes = [with_volumes(subject) for subject in subjects]
    assert None not in of_volumes
    assert apart_in_two(of_volumes) == [""] * len(TAKE_VOLUMES)


def test_translation_by_contrast_ends_in_two_processes_in_the_weights_of_one(registry):
    ends_in_the_weights_of_one(registry, [("attent", {"contrast": 1.0})])


@pytest.mark.skipif("ATTENTKIT_COMPLETE" not in os.environ, reason="set ATTENTKIT_COMPLETE=1; a minute")
def test_every_branch_and_network_ends_in_two_processes_in_the_weights_of_one(registry):
    asked = [(name, more) for name, more in VARIANTS if more]
    asked += [("source_only", {"segmentor": {"name": name}}) for name in (*SEGMENTORS, *monai_here())]
    asked += [("attent", {"segmentor": {"name": "smp", "encoder": "tu-test_convnext"}}), ("selftrain", {"jitter": 0.5})]
    ends_in_the_weights_of_one(registry, asked)


def monai_here():
    """Names of MONAI's networks where the package is installed."""
    try:
        import monai  # noqa: F401
    except ImportError:
        return ()
    return MONAI


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("could not restore shapes 3 and 4", RuntimeError, "shapes 3 and 4"),
        (
            "[gloo/transport/tcp/pair.cc:534] Connection closed by peer",
            RunError,
            "1 of the 2 of this run has lost another",
        ),
    ],
)
def test_a_methods_own_error_is_not_taken_for_the_end_of_another_process(monkeypatch, said, error, words):
    both = ranks.ProcessGroup(2)
    monkeypatch.setattr(both, "_start", lambda threads: None)
    with pytest.raises(error, match=words), both.together():
        raise RuntimeError(said)


def test_processes_that_do_not_meet_say_where_they_have_waited(monkeypatch):
    monkeypatch.setattr(ranks, "TO_MEET", timedelta(seconds=1))
    alone = ranks.ProcessGroup(2, ranks.Seat(0, 2, 0, 1, "127.0.0.1", 0, "srun"))
    with pytest.raises(RunError, match=r"process 1 of the 2 .* at 127\.0\.0\.1:0: .* MASTER_ADDR"):
        alone.meet()
