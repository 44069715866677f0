"""What surrounds the organs: skin, fat, muscle, ribs, spine, lungs and heart."""

import numpy as np

from attent_kit.data.phantom.patient import Patient
from attent_kit.data.phantom.shapes import Canvas, Ellipsoid, Tube
from attent_kit.data.phantom.tissues import Tissue

HALF_WIDTH, HALF_DEPTH = 176.0, 136.0
VERTEBRA_HEIGHT = 34.0


def paint_frame(canvas: Canvas, patient: Patient) -> tuple[np.ndarray, np.ndarray]:
    """Paint the trunk; return the depth in the cavity and the distance below the diaphragm, mm [X, Y, Z]."""
    x, y, z, tissue = canvas.x, canvas.y, canvas.z, canvas.tissue
    radius = np.sqrt(x * x + y * y) + np.float32(1e-3)
    # A superellipse: flatter in front and behind than an ellipse.
    outline = (np.abs(x / HALF_WIDTH) ** 2.4 + np.abs(y / HALF_DEPTH) ** 2.4) ** np.float32(1 / 2.4)
    skin_depth = radius * (1 / np.maximum(outline, 1e-3) - 1)
    sagging = np.float32(1) + np.clip(-z - 40, 0, 150) / np.float32(150)
    subcutaneous = np.float32(8 * patient.fat) * (1 + np.float32(0.9) * (y / radius) ** 2) * sagging
    wall_depth = skin_depth - subcutaneous
    cavity = wall_depth - 12
    below_diaphragm = diaphragm(x, y) - z

    tissue[skin_depth > 0] = Tissue.SKIN
    tissue[skin_depth > 2.5] = Tissue.FAT
    tissue[wall_depth > 0] = Tissue.MUSCLE
    tissue[(cavity > 0) & (below_diaphragm > 0)] = Tissue.FAT
    paint_ribs(tissue, wall_depth, x, y, z)
    tissue[(cavity > 0) & (below_diaphragm < -3)] = Tissue.LUNG
    heart = Ellipsoid((-26, 40, 112), (66, 56, 54))
    canvas.paint(heart, (1.06, Tissue.FAT), (1.0, Tissue.HEART), where=lambda t, *_: t == Tissue.LUNG)
    paint_back(canvas)
    return cavity, below_diaphragm


def diaphragm(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height in mm of the diaphragm over (x, y): two domes, the right one higher, that fall backwards."""
    right = 84 - ((x - 72) / 80) ** 2 * 50
    left = 70 - ((x + 80) / 74) ** 2 * 50
    fall = np.where(y < 15, ((y - 15) / 100) ** 2 * 75, ((y - 15) / 100) ** 2 * 30)
    return (np.maximum(np.maximum(right, left), 48) - fall).astype(np.float32)


def paint_ribs(tissue: np.ndarray, depth: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    """Ribs run down and forward in the wall, above a costal margin that rises towards the midline in front."""
    slope = z + np.float32(0.6) * y + np.float32(0.15) * np.abs(x)
    across = np.abs(np.mod(slope, np.float32(26)) - 13)
    margin = np.where(y > 0, -45 + 70 * np.clip(y / 110, 0, 1) ** 2, -45) - np.float32(0.2) * (np.abs(x) - 100)
    inside = (np.abs(depth - 6) < 3.6) & (across < 4) & (z > margin)
    tissue[inside] = Tissue.CORTICAL_BONE
    tissue[inside & (np.abs(depth - 6) < 2.6) & (across < 3)] = Tissue.MARROW
    cartilage = inside & (y > 75)
    tissue[cartilage] = Tissue.DISC


def paint_back(canvas: Canvas) -> None:
    """Spinal muscles, psoas, crura, vertebrae, discs, canal and processes."""
    tall = 1e4
    for side in (1, -1):
        canvas.paint(Ellipsoid((side * 36, -86, 0), (36, 25, tall)), (1.0, Tissue.MUSCLE))
        canvas.paint(Ellipsoid((side * 68, -80, -120), (26, 13, 95)), (1.0, Tissue.MUSCLE))
        psoas = Tube([(side * 30, -48, -5), (side * 42, -46, -80), (side * 56, -34, -190)], [9, 19, 24])
        canvas.paint(psoas, (1.0, Tissue.MUSCLE))
        canvas.paint(Tube([(side * 12, -24, 40), (side * 15, -26, -40)], [6, 4]), (1.0, Tissue.MUSCLE))
    block = canvas.window((-60, -125, -tall), (60, -15, tall))
    if block is None:
        return
    x, y, z, tissue = canvas.x[block], canvas.y[block], canvas.z[block], canvas.tissue[block]
    phase = np.mod(z, np.float32(VERTEBRA_HEIGHT))
    disc = phase < 8
    waist = np.where(disc, 1.03, 0.97 + 0.04 * np.cos((phase - 8) / 26 * 2 * np.pi)).astype(np.float32)
    vertebra = np.sqrt((x / 23) ** 2 + ((y + 46) / 18) ** 2) / waist
    arch = np.sqrt((x / 17) ** 2 + ((y + 74) / 15) ** 2)
    spine = (np.abs(x) < 3.5) & (y < -84) & (y > -112) & (np.abs(phase - 18) < 10)
    transverse = (np.abs(y + 70 + 0.12 * np.abs(x)) < 4) & (np.abs(x) < 42) & (np.abs(phase - 22) < 6)
    bony = ((arch < 1) & (np.abs(phase - 20) < 11)) | spine | transverse
    tissue[(arch < 1) & ~bony] = Tissue.FAT
    tissue[bony] = Tissue.CORTICAL_BONE
    tissue[bony & (np.abs(x) > 20) & (np.abs(phase - 22) < 3)] = Tissue.MARROW
    tissue[vertebra < 1] = Tissue.CORTICAL_BONE
    tissue[vertebra < 0.96] = Tissue.MARROW
    tissue[(vertebra < 1) & disc] = Tissue.DISC
    canal = np.sqrt((x / 10) ** 2 + ((y + 74) / 8.5) ** 2)
    tissue[canal < 1] = Tissue.CSF
    tissue[canal < 0.5] = Tissue.CORD
