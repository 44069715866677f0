"""What an organ is called here, however a file or a folder of masks spells it."""

import re

_SPELLINGS = {
    "liver": "",
    "right kidney": "rkidney kidneyr kidneyrt rk",
    "left kidney": "lkidney kidneyl kidneylt lk",
    "spleen": "",
    "gallbladder": "gallblader",
    "esophagus": "oesophagus",
    "stomach": "",
    "duodenum": "",
    "pancreas": "",
    "aorta": "arota",
    "inferior vena cava": "ivc venacava postcava",
    "portal and splenic veins": "portalveinandsplenicvein portalsplenicvein veins",
    "right adrenal gland": "adrenalglandright rightadrenal adrenalright rag rightsurrenalgland",
    "left adrenal gland": "adrenalglandleft leftadrenal adrenalleft lag leftsurrenalgland",
    "bladder": "urinarybladder",
    "left ventricle": "heartventricleleft lv",
    "right ventricle": "heartventricleright rv",
    "left atrium": "heartatriumleft la",
    "right atrium": "heartatriumright ra",
    "myocardium": "heartmyocardium myo",
    "right lung": "",
    "left lung": "",
}
"""Other spellings of a name, in small letters without anything between the words."""
_ROLES = re.compile(r"(^|[^a-z])(mask|masks|seg|segmentation|label|gt|roi)(?=[^a-z]|$)")


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", _ROLES.sub(" ", name.lower()))


def _known() -> dict[str, str]:
    found: dict[str, str] = {}
    for organ, others in _SPELLINGS.items():
        side, _, part = organ.partition(" ")
        turned = part + side if side in ("left", "right") else organ
        found |= dict.fromkeys([_squeezed(organ), _squeezed(turned), *others.split()], organ)
    return found


_KNOWN = _known()


def organ_called(name: str) -> str | None:
    """The organ that a name such as 'kidney_right', 'RK' or 'leftsurrenalgland' means; None if it is not known here."""
    return _KNOWN.get(_squeezed(name))


def plainly(name: str) -> str:
    """The organ that is meant, or else the words of the name: 'portal_vein_1' is 'portal vein 1'."""
    return organ_called(name) or " ".join(re.findall(r"[^\W_]+", name)) or name
