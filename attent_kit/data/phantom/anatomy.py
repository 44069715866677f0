"""The abdomen of one patient as a tissue map: organs, vessels, stomach and bowel.

Positions are millimetres from the centre of the body, at the height of the liver's centroid.
"""

import numpy as np

from attent_kit.data.phantom.frame import paint_frame
from attent_kit.data.phantom.patient import Patient
from attent_kit.data.phantom.shapes import (
    Canvas,
    Ellipsoid,
    Tube,
    smooth_intersection,
    smooth_noise,
    smooth_union,
    spline,
    turn,
)
from attent_kit.data.phantom.tissues import Tissue

COARSE = 8


def tissue_map(patient: Patient, x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tissues [X, Y, Z] at world positions in mm (each [X, Y, Z], axes right, anterior, superior)."""
    p = patient.to_anatomy(x, y, z)
    nodes = [np.unique(np.linspace(0, n - 1, max(2, n // COARSE)).round().astype(int)) for n in x.shape]
    for axis, field in enumerate(patient.displacement(*(v[np.ix_(*nodes)] for v in p))):
        p[axis][...] += spline(field, x.shape)
    canvas = Canvas(*p)
    cavity, below_diaphragm = paint_frame(canvas, patient)
    paint_bowel(canvas, cavity > 1, rng)
    paint_stomach(canvas, patient, rng)
    paint_pancreas(canvas, patient)
    paint_liver(canvas, patient, cavity, below_diaphragm)
    if "spleen" not in patient.missing:
        paint_spleen(canvas, patient, cavity, below_diaphragm)
    for side in ("right", "left"):
        if f"{side} kidney" not in patient.missing:
            paint_kidney(canvas, patient, side)
    paint_vessels(canvas)
    return canvas.tissue


def soft(tissue: np.ndarray, *_: np.ndarray) -> np.ndarray:
    """Fat may be painted over; wall, bone, lung and organs may not."""
    return tissue == Tissue.FAT


def hollow(tissue: np.ndarray, *_: np.ndarray) -> np.ndarray:
    """Fat, bowel and stomach give way to a solid organ."""
    ways = (Tissue.FAT, Tissue.GAS, Tissue.STOMACH_CONTENT, Tissue.BOWEL_WALL, Tissue.BOWEL_CONTENT, Tissue.STOOL)
    return np.isin(tissue, ways)


def yields_to_bile(tissue: np.ndarray, *_: np.ndarray) -> np.ndarray:
    """The gall bladder lies in a fossa of the liver."""
    return hollow(tissue) | (tissue == Tissue.LIVER)


def paint_liver(canvas: Canvas, patient: Patient, cavity: np.ndarray, below_diaphragm: np.ndarray) -> None:
    """Right lobe against the wall and under the right dome, left lobe across the midline in front of the stomach."""
    s, t = patient.sizes["liver"], patient.sizes["left lobe"]
    dx, dy, dz = patient.moves["liver"] * [0.6, 0.6, 0.8]
    low, high = (-95 + dx, -110, -110), (165, 120, 100)
    if (block := canvas.window(low, high)) is None:
        return
    x, y, z, tissue = canvas.x[block], canvas.y[block], canvas.z[block], canvas.tissue[block]
    right = Ellipsoid((82 + dx, 2 + dy, 2 + dz), (71 * s, 80 * s, 77 * s)).level(x, y, z)
    under = 1 + (-70 * s + dz + 0.66 * (122 + dx - x) + 0.14 * (y - 20) - z) / np.float32(60)
    behind = 1 + (-4 + dy - 1.0 * (x - 18 - dx) - y) / np.float32(70)
    right = smooth_intersection(smooth_intersection(right, under, 0.12), behind, 0.12)
    left_lobe = Ellipsoid((2 + dx, 56 + dy, 30 + dz), (80 * t, 34 * t, 27 * s), turn(0, -14, 10)).level(x, y, z)
    level = smooth_union(right, left_lobe, 0.12)
    room = (cavity[block] > 2) & (below_diaphragm[block] > 3) & hollow(tissue)
    liver = (level < 1) & room
    tissue[liver] = Tissue.LIVER
    t = patient.sizes["gall bladder"]
    fundus = np.array([58, 62, -38]) + patient.moves["gall bladder"]
    bladder = Ellipsoid(fundus, (15 * t, 26 * t, 17 * t), turn(-25, 0, 15))
    canvas.paint(bladder, (1.0, Tissue.BOWEL_WALL), (0.93, Tissue.BILE), where=yields_to_bile)


def paint_spleen(canvas: Canvas, patient: Patient, cavity: np.ndarray, below_diaphragm: np.ndarray) -> None:
    """Along the posterior left wall, hollowed towards stomach and kidney."""
    s = patient.sizes["spleen"]
    center = np.array([-114, -40, 22]) + patient.moves["spleen"]
    shape = Ellipsoid(center, (38 * s, 56 * s, 44 * s), turn(15, 0, 32))
    hollowing = Ellipsoid(center + [48, 20, -8], (34, 44, 50))
    if (block := canvas.window(*shape.bounds())) is None:
        return
    x, y, z, tissue = canvas.x[block], canvas.y[block], canvas.z[block], canvas.tissue[block]
    level = smooth_intersection(shape.level(x, y, z), 2 - hollowing.level(x, y, z), 0.15)
    room = (cavity[block] > 2) & (below_diaphragm[block] > 3) & hollow(tissue)
    tissue[(level < 1) & room] = Tissue.SPLEEN


def paint_kidney(canvas: Canvas, patient: Patient, side: str) -> None:
    """A bean in perirenal fat: cortex, pyramids of medulla, and a sinus of fat and urine that opens medially."""
    name = f"{side} kidney"
    sign = 1 if side == "right" else -1
    s = patient.sizes[name] * (0.72 if name in patient.shrunken else 1.0)
    place = (68, -32, -46) if side == "right" else (-78, -34, -30)
    center = np.asarray(place, float) + patient.moves[name]
    axes = turn(-14, sign * 14, sign * -25)
    cortex = Tissue.RIGHT_CORTEX if side == "right" else Tissue.LEFT_CORTEX
    medulla = Tissue.RIGHT_MEDULLA if side == "right" else Tissue.LEFT_MEDULLA
    bean = Ellipsoid(center, ((28.5 if sign > 0 else 27) * s, 33 * s, 57 * s), axes)
    # Muscle keeps its place behind the kidney, everything softer gives way to its fat capsule.
    solid = (Tissue.MUSCLE, Tissue.CORTICAL_BONE, Tissue.MARROW, Tissue.DISC, Tissue.SKIN, Tissue.LUNG, Tissue.AIR)

    def room(tissue: np.ndarray, *_: np.ndarray) -> np.ndarray:
        return ~np.isin(tissue, solid)

    canvas.paint(bean, (1.1, Tissue.FAT), (1.0, cortex), where=room)
    low, high = bean.bounds()
    if (block := canvas.window(low, high)) is None:
        return
    x, y, z, tissue = canvas.x[block], canvas.y[block], canvas.z[block], canvas.tissue[block]
    level = bean.level(x, y, z)
    pyramids = np.cos((z - np.float32(center[2])) * np.float32(2 * np.pi / 19)) > -0.35
    tissue[(level < 0.74) & pyramids & (tissue == cortex)] = medulla
    inward = center + axes @ [-sign * 15 * s, 0, 0]
    kidney = np.isin(tissue, (cortex, medulla))
    sinus = Ellipsoid(inward, (15 * s, 9 * s, 24 * s), axes).level(x, y, z)
    tissue[(sinus < 1) & kidney] = Tissue.FAT
    tissue[(sinus < 0.5) & (tissue == Tissue.FAT)] = Tissue.URINE
    adrenal = center + axes @ [-sign * 16, 10, 62 * s]
    canvas.paint(Tube([adrenal, adrenal + [-sign * 4, 12, -14]], [4, 3]), (1.0, Tissue.ADRENAL), where=soft)


def paint_stomach(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Fundus, body and antrum with fluid up to a level and gas in front of it, as in a patient who lies on the back."""
    m, s = patient.moves["stomach"], patient.sizes["stomach"] * rng.uniform(0.85, 1.1)
    points = [np.array(p) + m for p in ((-70, -8, 40), (-70, 32, 8), (-34, 62, -26), (18, 58, -32))]
    shape = Tube(points, [40 * s, 32 * s, 23 * s, 13])
    surface = points[1][1] + rng.uniform(-5, 25)
    canvas.paint(shape, (1.0, Tissue.BOWEL_WALL), (0.88, Tissue.STOMACH_CONTENT), where=soft)
    canvas.paint(shape, (0.88, Tissue.GAS), where=lambda t, x, y, z: (t == Tissue.STOMACH_CONTENT) & (y > surface))


def paint_bowel(canvas: Canvas, room: np.ndarray, rng: np.random.Generator) -> None:
    """Colon around the abdomen with stool and gas, duodenum, and loops of small bowel with content and gas."""
    patches = smooth_noise(rng, room.shape, [14, 14, 14])
    tissue = canvas.tissue
    hard = tissue.copy()
    frame = [(104, 2, -230), (104, 8, -120), (98, 20, -84), (62, 66, -88), (0, 82, -104), (-70, 66, -72),
             (-112, 24, -28), (-122, -6, -70), (-118, 2, -230)]  # fmt: skip
    colon = [np.array(p) + rng.normal(0, 5, 3) for p in frame]
    radii = rng.uniform(15, 23, len(colon))
    canvas.paint(Tube(colon, radii), (1.0, Tissue.BOWEL_WALL), (0.86, Tissue.STOOL), where=soft)
    tissue[(tissue == Tissue.STOOL) & (patches > rng.uniform(0.1, 0.7))] = Tissue.GAS
    duodenum = [(22, 52, -34), (48, 28, -44), (46, 4, -80), (8, 2, -92), (-28, 14, -78)]
    canvas.paint(Tube(duodenum, [13] * 5), (1.0, Tissue.BOWEL_WALL), (0.8, Tissue.BOWEL_CONTENT), where=soft)
    for _ in range(16):
        point = rng.uniform([-85, 8, -200], [85, 85, -66])
        loop = [point]
        for _ in range(3):
            loop.append(loop[-1] + rng.normal(0, [26, 14, 18]))
        filling = Tissue.BOWEL_CONTENT if rng.random() < 0.8 else Tissue.GAS
        canvas.paint(Tube(loop, [rng.uniform(10, 15)] * 4), (1.0, Tissue.BOWEL_WALL), (0.78, filling), where=soft)
    tissue[~room] = hard[~room]


def paint_pancreas(canvas: Canvas, patient: Patient) -> None:
    """Head beside the duodenum, body across the aorta, tail towards the spleen."""
    m, s = patient.moves["pancreas"] * 0.7, patient.sizes["pancreas"]
    points = [np.array(p) + m for p in ((30, 18, -52), (22, 24, -30), (-20, 26, -18), (-60, 6, -6), (-88, -12, 6))]
    canvas.paint(Tube(points, [13 * s, 13 * s, 9 * s, 9 * s, 8 * s]), (1.0, Tissue.PANCREAS), where=hollow)


def paint_vessels(canvas: Canvas) -> None:
    """Aorta, inferior vena cava, renal and splenic vessels, portal vein, hepatic veins."""
    in_liver = (Tissue.LIVER,)
    portal = [(12, 16, -26), (30, 22, 0), (62, 14, 14), (104, 8, 18)]
    trees = [
        Tube(portal, [6.5, 6.5, 5.5, 3]),
        Tube([(30, 22, 0), (14, 46, 22), (-22, 56, 34)], [5.5, 4.5, 2.5]),
        Tube([(62, 14, 14), (96, 30, -18)], [4.5, 2.5]),
        Tube([(24, -8, 60), (62, -2, 50), (112, -4, 34)], [5.5, 5, 2.5]),
        Tube([(24, -8, 60), (46, 28, 46), (66, 60, 26)], [5, 4.5, 2.5]),
        Tube([(24, -8, 60), (8, 34, 44), (-10, 58, 30)], [5, 4, 2.5]),
    ]
    for tree in trees:
        canvas.paint(tree, (1.0, Tissue.HEPATIC_VESSEL), where=lambda t, *_: np.isin(t, in_liver))
        canvas.paint(tree, (1.0, Tissue.VEIN), where=soft)
    aorta = [(-8, -14, 140), (-9, -16, 0), (-6, -16, -110), (-2, -14, -150)]
    cava = [(24, -6, 84), (24, -10, 40), (22, -12, -60), (18, -14, -150)]
    canvas.paint(Tube(cava, [12, 12, 11, 10]), (1.0, Tissue.VEIN))
    for side in (1, -1):
        iliac = np.array([(0, -14, -142), (side * 36, -20, -230)])
        canvas.paint(Tube(iliac + [8, -7, -6], [8, 7]), (1.0, Tissue.VEIN))
        canvas.paint(Tube(iliac, [6.5, 5.5]), (1.0, Tissue.ARTERY))
    canvas.paint(Tube(aorta, [11, 10.5, 9, 8]), (1.0, Tissue.ARTERY))
    canvas.paint(Tube([(-8, -8, -36), (-40, -22, -34), (-64, -30, -32)], [3.5, 3.5, 3]), (1.0, Tissue.VEIN), where=soft)
    canvas.paint(Tube([(24, -12, -44), (54, -28, -46)], [4.5, 3.5]), (1.0, Tissue.VEIN), where=soft)
    canvas.paint(Tube([(12, 14, -26), (-30, 14, -14), (-88, -18, 8)], [5, 4.5, 3.5]), (1.0, Tissue.VEIN), where=soft)
    canvas.paint(Tube([(4, 30, -30), (2, 26, -110)], [5, 4.5]), (1.0, Tissue.VEIN), where=hollow)
