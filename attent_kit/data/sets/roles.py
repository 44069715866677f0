"""What a file name says about its role: an image, a label map, or nothing that is known."""

import re
from pathlib import Path

ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
LABEL_WORDS = frozenset(
    [
        "label",
        "labels",
        "lbl",
        "lbls",
        "mask",
        "masks",
        "seg",
        "segs",
        "segmentation",
        "segmentations",
        "roi",
        "rois",
        "gt",
        "truth",
        "groundtruth",
        "annotation",
        "annotations",
    ]
)
IMAGE_WORDS = frozenset(["image", "images", "img", "imgs", "volume", "volumes", "vol", "scan", "scans"])
MODALITIES = frozenset(["ct", "mr", "mri"])
"""Words that an image may have and its label map may lack; by themselves they name no role."""
_BESIDE_LABELS = re.compile(r"ground(?=[-_. ]?truth)|(?<=labels)[-_. ]totalsegmentator", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+")
_KEPT = IMAGE_WORDS - {"image", "images", "img", "imgs"}
"""Words that stay in the name of a case whose label map is called the same."""
_CHANNEL = re.compile(r"_0000$")


def stem(path: Path | str) -> str:
    """The name of a volume without its ending, and with everything else."""
    return ENDING.sub("", Path(path).name)


def is_label(path: Path | str) -> bool:
    """Whether a file is named as a label map, as `label0001`, `case1_seg` and `X_ROI` are: the last known word tells."""
    words = [word for word in _words(stem(path)) if word in LABEL_WORDS | IMAGE_WORDS]
    return bool(words) and words[-1] in LABEL_WORDS


def case_name(path: Path | str) -> str:
    """The case of a file: `img0001.nii.gz` and `label0001.nii.gz` -> '0001', `ct_case1_labels.nii.gz` -> 'ct_case1'."""
    return _without(stem(path), (LABEL_WORDS | IMAGE_WORDS) - _KEPT) or stem(path)


def forms(path: Path | str) -> tuple[str, str, str]:
    """The name as it is, without the words of a role, and without modality and channel: an image and its label map agree
    in one of them."""
    whole = stem(path)
    bare = _without(whole, LABEL_WORDS | IMAGE_WORDS)
    return whole, bare, _without(_CHANNEL.sub("", bare), MODALITIES)


def _words(name: str) -> list[str]:
    """Every run of letters, in lower case."""
    return [word.lower() for word in _WORD.findall(name)]


def _without(name: str, words: frozenset[str]) -> str:
    """A name without some of its words, and without what parted them from the rest."""
    if words & LABEL_WORDS:
        name = _BESIDE_LABELS.sub("", name)
    for match in reversed([*_WORD.finditer(name)]):
        if match[0].lower() not in words:
            continue
        before, after = name[: match.start()], name[match.end() :]
        # A word inside a name is one only if something parts it from its neighbours; a digit does: label0001.
        name = before.rstrip("-_. ") + after if before else after.lstrip("-_. ")
    return name
