"""What organs are called in DICOM: SNOMED CT codes, and the side where a code does not say it (PS3.16, CID 7150 to 7159, 244)."""

from typing import Any, NamedTuple

from attent_kit.data.scans.dicom_file import require_pydicom


class OrganCode(NamedTuple):
    """A concept of SNOMED CT."""

    value: str
    meaning: str
    side: str = ""
    """left or right, which is a code of its own beside that of a paired organ."""


SIDES = {"right": OrganCode("24028007", "Right"), "left": OrganCode("7771000", "Left")}
_KIDNEY, _ADRENAL, _LUNG = ("64033007", "Kidney"), ("23451007", "Adrenal gland"), ("39607008", "Lung")
ORGAN_CODES = {
    "liver": OrganCode("10200004", "Liver"),
    "right kidney": OrganCode(*_KIDNEY, "right"),
    "left kidney": OrganCode(*_KIDNEY, "left"),
    "spleen": OrganCode("78961009", "Spleen"),
    "gallbladder": OrganCode("28231008", "Gallbladder"),
    "esophagus": OrganCode("32849002", "Esophagus"),
    "stomach": OrganCode("69695003", "Stomach"),
    "duodenum": OrganCode("38848004", "Duodenum"),
    "pancreas": OrganCode("15776009", "Pancreas"),
    "aorta": OrganCode("15825003", "Aorta"),
    "inferior vena cava": OrganCode("64131007", "Inferior vena cava"),
    "right adrenal gland": OrganCode(*_ADRENAL, "right"),
    "left adrenal gland": OrganCode(*_ADRENAL, "left"),
    "bladder": OrganCode("89837001", "Bladder"),
    "left ventricle": OrganCode("87878005", "Left ventricle"),
    "right ventricle": OrganCode("53085002", "Right ventricle"),
    "left atrium": OrganCode("82471001", "Left atrium"),
    "right atrium": OrganCode("73829009", "Right atrium"),
    "ascending aorta": OrganCode("54247002", "Ascending aorta"),
    "pulmonary artery": OrganCode("81040000", "Pulmonary artery"),
    "right lung": OrganCode(*_LUNG, "right"),
    "left lung": OrganCode(*_LUNG, "left"),
}
"""By the names that are used here."""
ANATOMICAL = OrganCode("91723000", "Anatomical Structure")
OWN_SCHEME = "99ATTENTKIT"
"""Of organs that have no code above: PS3.16 keeps names that begin with 99 for private use."""


def organ_coded(codes: list[Any], sides: list[Any]) -> str | None:
    """The organ of code items (pydicom data sets), with its side where items say it; None if it is not known here."""
    concepts, told = [_as_code(item) for item in codes], [_as_code(item) for item in sides]
    for organ, own in ORGAN_CODES.items():
        code = _snomed(own)
        if code in concepts and (not own.side or _snomed(SIDES[own.side]) in told):
            return organ
    return None


def _snomed(own: OrganCode) -> Any:
    return _code(own.value, "SCT", own.meaning)


def _as_code(item: Any) -> Any:
    given = (str(item.get(keyword, "")) for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
    return _code(*given)


def _code(value: str, scheme: str, meaning: str) -> Any:
    """A code of pydicom, which knows that the older designators SRT and SNM3 mean the same concepts."""
    require_pydicom()
    from pydicom.sr.coding import Code

    return Code(value, scheme, meaning)
