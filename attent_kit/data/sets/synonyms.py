"""Organs by the names that data sets give them: which names mean the same organ, and which organ is part of another."""

import re

SYNONYMS: dict[str, tuple[str, ...]] = {
    "right kidney": ("rk", "rkid", "rkidney", "kidneyr", "kidneyrt"),
    "left kidney": ("lk", "lkid", "lkidney", "kidneyl", "kidneylt"),
    "kidneys": ("kidney", "both kidneys"),
    "spleen": ("spl",),
    "liver": ("liv",),
    "gallbladder": ("gall bladder", "gallblader", "gall", "gb"),
    "esophagus": ("oesophagus", "eso"),
    "stomach": ("sto",),
    "aorta": ("arota", "aor"),
    "inferior vena cava": ("ivc", "postcava", "vena cava", "vena cava inferior"),
    "portal and splenic veins": (
        "portal vein and splenic vein",
        "portal and splenic vein",
        "portal splenic vein",
        "veins",
    ),
    "pancreas": ("pan",),
    "right adrenal gland": ("right adrenal", "right surrenal gland", "rag"),
    "left adrenal gland": ("left adrenal", "left surrenal gland", "lag"),
    "adrenal glands": ("adrenal gland", "adrenals", "both adrenal glands"),
    "duodenum": ("duo",),
    "bladder": ("urinary bladder",),
    "left ventricle": ("left heart ventricle", "lv"),
    "right ventricle": ("right heart ventricle", "rv"),
    "left atrium": ("left heart atrium", "la"),
    "right atrium": ("right heart atrium", "ra"),
    "myocardium": ("heart myocardium", "myo"),
    "right lung": (),
    "left lung": (),
    "lungs": ("lung", "both lungs"),
}
"""Other names of an organ, beside capitals, dashes and the order of words, and `r` or `l` for right and left. The names, and
their misspellings, are those of BTCV, AMOS, FLARE, CHAOS, 3D-IRCADb, MM-WHS and TotalSegmentator."""
PAIRS = {"kidneys": "kidney", "adrenal glands": "adrenal gland", "lungs": "lung"}
"""What is made of a right and a left organ."""
LESIONS = frozenset(
    ["tumor", "tumors", "tumour", "tumours", "cancer", "cyst", "cysts", "lesion", "lesions", "metastasis", "metastases"]
)
"""Words by which a name means something inside the organ that it names."""
_SIDES = {"r": "right", "rt": "right", "l": "left", "lt": "left"}
_ROLES = re.compile(r"(^|[^a-z])(mask|masks|seg|segmentation|label|gt|roi)(?=[^a-z]|$)")
"""Words of a file's name that say what it is, and not which organ it shows."""


def words_of(name: str) -> frozenset[str]:
    """The words of an organ's usual name, whatever their order: those of 'kidney_right' and 'RK' are those of 'Right kidney'."""
    words = _plain_words(name)
    return _USUAL.get(words, words)


def organ_called(name: str) -> str | None:
    """The organ of which a file, a folder or a segment of that name is the mask: 'kidney_right', 'RK-mask', 'leftsurrenalgland'.

    None if it is not known here, and for what is made of two organs: a mask called 'kidney' may be that of one of them.
    """
    return _RUN_TOGETHER.get(_run_together(name))


def plainly(name: str) -> str:
    """The organ that is meant, or else the words of the name: 'portal_vein_1' is 'portal vein 1'."""
    return organ_called(name) or " ".join(re.findall(r"[^\W_]+", name)) or name


def overlap(one: str, other: str) -> bool:
    """Whether an organ is the other one, a part of it, or made of it: 'kidneys' and 'left kidney', 'liver' and 'liver tumor'."""
    wholes = [(words_of(a), _wholes(b)) for a, b in ((one, other), (other, one))]
    return words_of(one) == words_of(other) or any(words in parts for words, parts in wholes)


def is_lesion(name: str) -> bool:
    """Whether a name means something inside an organ, such as a tumour."""
    return bool(words_of(name) & LESIONS)


def _wholes(name: str) -> set[frozenset[str]]:
    """What an organ is part of, each as its words."""
    words = words_of(name)
    sided = {pair: [words_of(f"{side} {single}") for side in ("right", "left")] for pair, single in PAIRS.items()}
    found = {words_of(pair) for pair, both in sided.items() if words in both}
    if inside := words - LESIONS:
        organ = _USUAL.get(inside, inside)
        if organ != words:
            found |= {organ, *(one for pair, both in sided.items() if words_of(pair) == organ for one in both)}
    return found


def _plain_words(name: str) -> frozenset[str]:
    words = [word for word in re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()) if word]
    return frozenset(_SIDES.get(word, word) for word in words) if len(words) > 1 else frozenset(words)


_USUAL = {_plain_words(other): _plain_words(name) for name, others in SYNONYMS.items() for other in others}


def _run_together(name: str) -> str:
    """The letters and digits of a name, without the words that say what the file is."""
    return re.sub(r"[^a-z0-9]+", "", _ROLES.sub(" ", name.lower()))


def _sides_behind(name: str) -> str:
    """'kidney right' of 'right kidney'; any other name as it is."""
    side, _, organ = name.partition(" ")
    return f"{organ} {side}" if side in ("left", "right") else name


_RUN_TOGETHER = {
    _run_together(spelled): organ
    for organ, others in SYNONYMS.items()
    if organ not in PAIRS
    for other in (organ, *others)
    for spelled in (other, _sides_behind(other))
}
