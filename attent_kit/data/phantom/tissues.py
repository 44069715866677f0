"""Every tissue of the phantom, and the organ label that some of them carry."""

from enum import IntEnum, auto

import numpy as np

ORGANS = ("liver", "right kidney", "left kidney", "spleen")
"""Label values 1, 2, 3, 4; 0 is background."""


class Tissue(IntEnum):
    """One value per tissue that has its own attenuation or its own relaxation times."""

    AIR = 0
    SKIN = auto()
    FAT = auto()
    MUSCLE = auto()
    CORTICAL_BONE = auto()
    MARROW = auto()
    DISC = auto()
    CSF = auto()
    CORD = auto()
    LUNG = auto()
    GAS = auto()
    STOMACH_CONTENT = auto()
    BOWEL_WALL = auto()
    BOWEL_CONTENT = auto()
    STOOL = auto()
    ARTERY = auto()
    VEIN = auto()
    HEART = auto()
    BILE = auto()
    URINE = auto()
    PANCREAS = auto()
    ADRENAL = auto()
    LIVER = auto()
    HEPATIC_VESSEL = auto()
    RIGHT_CORTEX = auto()
    RIGHT_MEDULLA = auto()
    LEFT_CORTEX = auto()
    LEFT_MEDULLA = auto()
    SPLEEN = auto()


LABEL = np.zeros(len(Tissue), np.uint8)
"""Label value of each tissue: vessels inside the liver are liver, the renal sinus is background."""
LABEL[[Tissue.LIVER, Tissue.HEPATIC_VESSEL]] = 1
LABEL[[Tissue.RIGHT_CORTEX, Tissue.RIGHT_MEDULLA]] = 2
LABEL[[Tissue.LEFT_CORTEX, Tissue.LEFT_MEDULLA]] = 3
LABEL[Tissue.SPLEEN] = 4


def table(values: dict[Tissue, float]) -> np.ndarray:
    """Lookup table [tissue] of float32 from one number per tissue; every tissue must be given."""
    return np.array([values[tissue] for tissue in Tissue], np.float32)
