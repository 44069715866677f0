"""How far slices lie apart, for what sees several of them at once: nothing is resampled between slices."""

from collections.abc import Sequence

import numpy as np

from attent_kit.data.prepared.file import Prepared

FAR = 1.5
"""Times that slices of one domain lie further apart than those of the other, from which anatomy looks stretched."""
FAR_INSIDE = 2.0
"""The same of two cases of one domain."""
INSTEAD = (
    "resample the scans to one distance before `attentkit prepare`, or learn from single slices (--channels 1, and a "
    "segmentor of slices)"
)


def stretched(domains: Sequence[Prepared]) -> str | None:
    """What is said where slices of the domains, or of the cases of one, lie very differently far apart; None elsewhere."""
    found = [
        (str(domain.path), [domain.grid(case.id).distance for case in domain.cases])
        for domain in domains
        if domain.cases
    ]
    if not found:
        return None
    said = [(f"{np.median(mm):.3g} mm apart in {path}", float(np.median(mm))) for path, mm in found]
    (near, least), (far, most) = min(said, key=lambda s: s[1]), max(said, key=lambda s: s[1])
    if most > FAR * least:
        return (
            f"slices lie {near} and {far} (medians), so the same organ is {most / least:.1f} times as many slices high in the "
            "first"
        )
    for path, mm in found:
        if max(mm) > FAR_INSIDE * min(mm):
            return f"slices lie {min(mm):.3g} mm apart in one case of {path} and {max(mm):.3g} mm in another"
    return None
