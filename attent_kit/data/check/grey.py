"""Whether grey values are what the modality promises: Hounsfield units in CT, where air is -1000 and soft tissue 0 to 100."""

from collections.abc import Mapping

import numpy as np

from attent_kit.data.doubts.case import like_labels
from attent_kit.data.doubts.findings import Finding, Severity
from attent_kit.data.sets.labelmap import TASK_ORGANS
from attent_kit.data.sets.synonyms import words_of
from attent_kit.data.space.intensity import Intensity

SAMPLES = 2**20
"""Number of voxels, evenly spaced in plane, that shares and medians are taken from."""
AIR = -900.0
"""HU below which a voxel is air, which every CT has: around the patient, in lungs or bowel."""
SOFT = (-300.0, 300.0)
"""HU between which lie fat, muscle and organs."""
BODY = (-150.0, 150.0)
"""HU between which the median of those lies."""
ORGAN = (-30.0, 400.0)
"""HU between which the median of an abdominal organ lies, with contrast or without, fatty livers included."""
WINDOWS = -400.0
"""HU above which the lowest value may be the end of a window for soft tissue."""
CUT = 0.01
"""Share of the voxels at the lowest or highest value from which the range counts as cut off there."""


def grey_findings(image: np.ndarray, modality: str | None, medians: Mapping[str, float]) -> list[Finding]:
    """About the grey values of an image as stored [Z, H, W]; `medians` are those under each organ."""
    every = max(1, int(np.ceil(np.sqrt(image.size / SAMPLES))))
    sample = image[:, ::every, ::every].astype(np.float64).ravel()
    low, high = float(image.min()), float(image.max())
    found = _blank(image) + _like_labels(image)
    if modality == "ct":
        found += hounsfield_findings(sample, low, high, medians)
    elif np.mean(sample < AIR) > 0.05 and np.mean((sample > SOFT[0]) & (sample < SOFT[1])) > 0.05:
        what = "this is perhaps a CT" if modality else "this looks like a CT"
        found.append(
            _grey(
                "warning" if modality else "note",
                f"more than 5 % of the voxels are below {AIR:g}, as air is in HU, so {what}",
                "type --modality ct",
            )
        )
    return found


def hounsfield_findings(sample: np.ndarray, low: float, high: float, medians: Mapping[str, float]) -> list[Finding]:
    """About a CT by a sample of its voxels, its lowest and highest value, and the medians of its organs."""
    reach = f"its values go from {low:.4g} to {high:.4g}"
    rescale = "export it in HU again, or prepare it with --per-volume"
    if low >= -1.001 and high <= 1.001:
        return [_grey("warning", f"{reach}, as after scaling to -1 to 1 or 0 to 1, so this CT is not in HU", rescale)]
    if abs(sample.mean()) < 0.1 and 0.8 < sample.std() < 1.2:
        moments = f"mean {sample.mean():.2g}, standard deviation {sample.std():.2g}"
        return [_grey("warning", f"{reach} ({moments}), as z-scores do, so this CT is not in HU", rescale)]
    if low >= 0 and high <= 255:
        return [_grey("warning", f"{reach}, as after conversion to 8 bits, so this CT is not in HU", rescale)]
    if low >= 0:
        body = float(np.median(sample[sample > low + 0.15 * (np.percentile(sample, 99) - low)]))
        if 1024 + BODY[0] < body < 1024 + BODY[1]:
            return [
                _grey(
                    "error",
                    f"{reach} and the body's median is {body:.0f}, as stored values have before RescaleIntercept "
                    "(mostly -1024) is added, so this CT is not in HU",
                    "convert it from DICOM again, for example with dcm2niix, or subtract 1024",
                )
            ]
        return [_grey("warning", f"{reach}: no value is below 0, so this CT is perhaps not in HU", rescale)]
    return _scale(sample, low, high, medians) or _cut_off(sample, low, high)


def _scale(sample: np.ndarray, low: float, high: float, medians: Mapping[str, float]) -> list[Finding]:
    """About soft tissue that is not where it belongs."""
    reach = f"its values go from {low:.4g} to {high:.4g}"
    advice = "check whether RescaleSlope and RescaleIntercept were applied, once, and export it in HU"
    soft = sample[(sample > max(SOFT[0], low)) & (sample < min(SOFT[1], high))]
    share = soft.size / sample.size
    if share < 0.05:
        where = f"between {SOFT[0]:g} and {SOFT[1]:g}, where soft tissue is in HU"
        return [_grey("error", f"{reach}, and only {100 * share:.1f} % lie {where}", advice)]
    if not BODY[0] <= (middle := float(np.median(soft))) <= BODY[1]:
        what = f"the median of the soft tissue is {middle:.0f} HU, where 0 to 100 is usual"
        return [_grey("error", f"{reach}, and {what}", advice)]
    known = {words_of(organ) for organ in TASK_ORGANS}
    odd = {o: value for o, value in medians.items() if words_of(o) in known and not ORGAN[0] <= value <= ORGAN[1]}
    if odd:
        words = ", ".join(f"{organ} {value:.0f} HU" for organ, value in odd.items())
        return [
            _grey(
                "warning",
                f"medians that these organs do not have in HU: {words}",
                f"{advice}, and check whether the labels lie on the organs",
            )
        ]
    return []


def _cut_off(sample: np.ndarray, low: float, high: float) -> list[Finding]:
    """About a range that was cut off, or that never reaches air."""
    window = Intensity.default("ct")
    assert window.low is not None and window.high is not None
    ends: list[tuple[str, float, bool]] = []
    if low > WINDOWS and np.mean(sample == low) > CUT:
        ends.append(("below", low, low > window.low))
    if high < 1000 and np.mean(sample == high) > CUT:
        ends.append(("above", high, high < window.high))
    if ends:
        inside = any(lost for _, _, lost in ends)
        words = " and ".join(
            f"{way} {value:.4g} ({100 * np.mean(sample == value):.0f} % lie there)" for way, value, _ in ends
        )
        reach = f"the default window of {window.low:g} to {window.high:g}"
        return [
            _grey(
                "warning" if inside else "note",
                f"the values were cut off {words}, " + (f"inside {reach}" if inside else f"which leaves {reach} whole"),
                "export it without a window, or give that window with --window" if inside else "nothing to do",
            )
        ]  # fmt: skip
    if low > AIR:
        advice = "check whether RescaleSlope and RescaleIntercept were applied, once, and whether values were cut off"
        return [_grey("warning", f"the lowest value is {low:.4g}, where air is -1000 in HU", advice)]
    return []


def _like_labels(image: np.ndarray) -> list[Finding]:
    """About an image that is a label map: `prepare` refuses it."""
    evidence = like_labels(image)
    return [_grey("error", f"it {evidence}", "give the image, and its label map with --labels")] if evidence else []


def _blank(image: np.ndarray) -> list[Finding]:
    """About slices that hold one value only."""
    blank = [z for z, plane in enumerate(image) if plane.min() == plane.max()]
    if not blank:
        return []
    where = ", ".join(str(z + 1) for z in blank[:5]) + (", ..." if len(blank) > 5 else "")
    return [
        _grey(
            "note",
            f"{len(blank)} of {len(image)} slices hold one value only (counted from the feet: {where})",
            "nothing to do; training leaves them out",
        )
    ]


def _grey(severity: Severity, evidence: str, advice: str) -> Finding:
    return Finding(severity, "grey values", evidence, advice)
