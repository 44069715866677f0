"""Organs by the names that data sets give them: which names mean the same organ, and which organ is part of another."""

import re

SYNONYMS: dict[str, tuple[str, ...]] = {
    "right kidney": ("rk", "rkid"),
    "left kidney": ("lk", "lkid"),
    "kidneys": ("kidney", "both kidneys"),
    "spleen": ("spl",),
    "liver": ("liv",),
    "gallbladder": ("gall bladder", "gall", "gb"),
    "esophagus": ("oesophagus", "eso"),
    "stomach": ("sto",),
    "aorta": ("aor",),
    "inferior vena cava": ("ivc", "postcava", "vena cava inferior"),
    "portal and splenic veins": ("portal vein and splenic vein", "portal and splenic vein"),
    "pancreas": ("pan",),
    "right adrenal gland": ("right adrenal", "rag"),
    "left adrenal gland": ("left adrenal", "lag"),
    "adrenal glands": ("adrenal gland", "adrenals", "both adrenal glands"),
    "duodenum": ("duo",),
    "bladder": ("urinary bladder",),
    "lungs": ("lung", "both lungs"),
}
"""Other names of an organ, beside capitals, dashes and the order of words, and `r` or `l` for right and left. The names are
those of BTCV, AMOS, FLARE, CHAOS and TotalSegmentator."""
PAIRS = {"kidneys": "kidney", "adrenal glands": "adrenal gland", "lungs": "lung"}
"""What is made of a right and a left organ."""
LESIONS = frozenset(
    ["tumor", "tumors", "tumour", "tumours", "cancer", "cyst", "cysts", "lesion", "lesions", "metastasis", "metastases"]
)
"""Words by which a name means something inside the organ that it names."""
_SIDES = {"r": "right", "rt": "right", "l": "left", "lt": "left"}


def words_of(name: str) -> frozenset[str]:
    """The words of an organ's usual name, whatever their order: those of 'kidney_right' and 'RK' are those of 'Right kidney'."""
    words = _plain_words(name)
    return _USUAL.get(words, words)


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
