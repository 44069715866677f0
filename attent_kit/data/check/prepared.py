"""Looks at a prepared file: its slices and labels case by case, its splits, and what it says about how it was made."""

from pathlib import Path
from typing import Any

import numpy as np

from attent_kit.data.check.case import CheckedCase, Trace, case_findings, content_hash, fingerprint, voxels_of
from attent_kit.data.check.sets import split_findings
from attent_kit.data.doubts.case import label_doubts
from attent_kit.data.doubts.findings import Finding, Severity, doubted, refusal
from attent_kit.data.prepare.cases import content_of, truth_hash
from attent_kit.data.prepared.distances import INSTEAD, stretched
from attent_kit.data.prepared.file import Case, Prepared
from attent_kit.data.prepared.manifest import beside, to_toml
from attent_kit.data.sets.splits import SPLITS
from attent_kit.data.space.geometry import spacing_to_axial, to_axial
from attent_kit.errors import AttentKitError
from attent_kit.reading import text_of, toml_in

SATURATED = 0.05
"""Share of training voxels at 1 from which the percentiles do not fit them: they should leave 0.005 there."""
REACHED = 0.5
"""Least value that the brightest percentile of the training cases reaches if the constants fit them."""
AGAIN = "run `attentkit prepare` again"


class InFile:
    """A prepared file, checked one case after another. `target` if it is to be used as a target."""

    def __init__(self, path: Path, target: bool = False) -> None:
        self.path = path
        self.name = str(path)
        self.target = target
        self.findings: list[Finding] = []
        """About the file as a whole, known before a case is read."""
        self.prepared: Prepared | None = None
        self._training: list[np.ndarray] = []
        try:
            self.prepared = Prepared.open(path)
            self.findings += self._of_file(self.prepared)
        except AttentKitError as error:
            self.findings.append(refusal("unreadable", error, path))
        except MemoryError:
            raise
        except Exception as error:
            # A manifest that was edited by hand can lack anything.
            self.prepared = None
            self.findings.append(self._damaged(error))

    @property
    def cases(self) -> list[str]:
        """Ids, sorted."""
        return [] if self.prepared is None else sorted(case.id for case in self.prepared.cases)

    def look(self, case: str) -> tuple[list[Finding], Trace | None]:
        """What is found in one case, and what is kept of it; None for one that cannot be read."""
        assert self.prepared is not None
        try:
            found, trace = self._look(self.prepared, self.prepared.case(case))
        except AttentKitError as error:
            found, trace = [refusal("unreadable", error, self.path)], None
        except MemoryError:
            raise
        except Exception as error:
            found, trace = [self._damaged(error)], None
        return [finding._replace(file=finding.file or self.name, case=case) for finding in found], trace

    def overall(self) -> list[Finding]:
        """What the cases that were looked at tell together: whether the intensity constants fit the training cases."""
        if self.prepared is None or self.prepared.intensity.kind != "percentiles" or not self._training:
            return []
        values = np.concatenate(self._training)
        at_top, top = float(np.mean(values >= 1)), float(np.percentile(values, 99.9))
        self._training = []
        if at_top <= SATURATED and top >= REACHED:
            return []
        grey = self.prepared.intensity
        return [
            Finding(
                "warning", "intensity",
                f"{100 * at_top:.1f} % of the training slices lie at 1 and their 99.9th percentile at {top:.2f}; constants "
                f"measured on them ({grey.low:g} to {grey.high:g}) would leave about 0.5 % at 1",
                AGAIN, self.name,
            )
        ]  # fmt: skip

    def _look(self, prepared: Prepared, case: Case) -> tuple[list[Finding], Trace]:
        record = next(record for record in prepared.manifest["cases"] if record["id"] == case.id)
        image = prepared.slices(case.id)[:, prepared.channels // 2]
        labels = prepared.label_slices(case.id) if case.has_labels else None
        arrays = {"images": image}
        if labels is not None:
            arrays["labels"] = labels
            if "truth" in record or {"val", "test"} & set(case.splits):
                arrays["truth"] = prepared.drawn(case.id)
        found = self._values(prepared, image, labels)
        if "without_organ" in record and "train" not in case.splits:
            found.append(
                Finding(
                    "error", "label-driven",
                    f"labels chose {len(case.with_organ)} of {case.slices} slices, and the case is in "
                    f"{' and '.join(case.splits)}",
                    f"{AGAIN}: only slices of training cases may be chosen by labels",
                )
            )  # fmt: skip
        drawn = record.get("truth")
        if content_of(arrays, record) != record["content"] or (drawn and truth_hash(arrays["truth"]) != drawn):
            advice = f"{AGAIN}: somebody has changed it"
            found.append(Finding("error", "content", "its voxels do not have the hash that its manifest gives", advice))
        if any(finding.severity == "error" for finding in found):
            return found, self._trace(prepared, case, record, image, None)
        grid = prepared.grid(case.id)
        upright = None if labels is None else to_axial(labels, grid.plane)
        window = prepared.intensity
        lungs = prepared.modality == "ct" and window.kind == "window" and window.low is not None and window.low <= -100
        seen = CheckedCase(
            to_axial(image, grid.plane).astype(np.float32), upright, prepared.organs,
            spacing_to_axial((grid.distance, grid.pixel, grid.pixel), grid.plane), (-0.95, -0.9) if lungs else None,
            case.annotated,
        )  # fmt: skip
        found += case_findings(seen)
        # What the pictures and headers told when they were read; the rest is seen here again, with more numbers.
        again = set() if upright is None else set(label_doubts(upright, prepared.organs))
        found += [doubted(doubt) for doubt in record["doubts"] if doubt not in again]
        if "train" in case.splits and window.kind == "percentiles" and case.kept:
            dark = image.min()
            bright = image[list(case.kept), ::2, ::2]
            self._training.append(bright[bright > dark].astype(np.float32)[:: max(1, len(case.kept) // 8)])
        return found, self._trace(prepared, case, record, image, labels)

    def _values(self, prepared: Prepared, image: np.ndarray, labels: np.ndarray | None) -> list[Finding]:
        found = []
        if wrong := int(np.count_nonzero(~(np.abs(image.astype(np.float32)) <= 1))):
            evidence = f"{wrong} voxels are not between -1 and 1, or are not numbers"
            found.append(Finding("error", "grey values", evidence, AGAIN))
        elif image.min() == image.max():
            found.append(Finding("error", "grey values", f"every voxel is {float(image.flat[0]):g}", AGAIN))
        if labels is not None and (highest := int(labels.max())) > len(prepared.organs):
            evidence = f"has the class {highest}, and there are {len(prepared.organs)} organs"
            found.append(Finding("error", "label values", evidence, AGAIN))
        return found

    def _trace(
        self, prepared: Prepared, case: Case, record: dict[str, Any], image: np.ndarray, labels: np.ndarray | None
    ) -> Trace:
        grid = prepared.grid(case.id)
        axial = grid.cut("axial")
        with_organ = 0 if labels is None else int(labels.any(axis=(1, 2)).sum())
        seen = CheckedCase(image, labels, prepared.organs, grid.planes_spacing, None, case.annotated)
        return Trace(
            self.name, "", case.id, self.name, case.splits, axial.planes_shape, axial.planes_spacing, content_hash(image),
            fingerprint(np.nan_to_num(to_axial(image, grid.plane).astype(np.float32))),
            content_hash(labels) if labels is not None and with_organ else "",
            voxels_of(seen), False, len(image), with_organ, source=str(record["image"]["sha256"]),
        )  # fmt: skip

    # The file as a whole

    def _of_file(self, prepared: Prepared) -> list[Finding]:
        return [
            finding._replace(file=finding.file or self.name)
            for finding in (
                *split_findings({name: prepared.ids(name) for name in SPLITS}, self.name),
                *self._beside(prepared),
                *self._measured_on(prepared),
                *self._stamped(prepared),
            )
        ]

    def _beside(self, prepared: Prepared) -> list[Finding]:
        """Whether the TOML beside it says the same."""
        toml = beside(self.path)
        if not toml.exists():
            evidence = f"there is no {toml.name} beside it, which tells people how it was made"
            return [
                Finding(
                    "note",
                    "manifest",
                    evidence,
                    "nothing to do, the same is stored inside; keep the two files together",
                )
            ]
        try:
            outside = toml_in(text_of(toml))
        except (OSError, ValueError) as error:
            evidence = f"cannot be read as TOML ({str(error).splitlines()[0]})"
            return [Finding("error", "manifest", evidence, AGAIN, str(toml))]
        different = differing(toml_in(to_toml(prepared.manifest)), outside)
        if not different:
            return []
        (name, inside, beside_it), more = different[0], len(different) - 1
        evidence = (
            f"says {name} = {_short(beside_it)} where {self.path.name} says {_short(inside)}"
            + f", and differs in {more} more place{'s' * (more > 1)}" * (more > 0)
        )
        return [Finding("error", "manifest", evidence, f"{AGAIN}, or find the file that it belongs to", str(toml))]

    def _measured_on(self, prepared: Prepared) -> list[Finding]:
        """Whether the constants of the grey values come from training cases alone."""
        if prepared.intensity.kind != "percentiles":
            return []
        measured_on = prepared.manifest["measured_on"]
        others = sorted(set(measured_on) - set(prepared.ids("train")))
        seen = sorted(set(measured_on) & {*prepared.ids("val"), *prepared.ids("test")})
        if not others and not seen:
            return []
        where = "are not in train" if others else "are in val or test, too"
        evidence = f"its intensity constants were measured on cases that {where}: {', '.join((others or seen)[:5])}"
        return [Finding("error", "intensity", evidence, f"{AGAIN} with splits that share no case")]

    def _stamped(self, prepared: Prepared) -> list[Finding]:
        """Whether it was prepared with --foreground-only."""
        if not prepared.manifest["label_driven"]:
            return []
        training = prepared.cases_in("train")
        seen, kept = (sum(len(getattr(case, name)) for case in training) for name in ("with_organ", "kept"))
        severity: Severity = "error" if self.target else "note"
        return [
            Finding(
                severity, "label-driven",
                f"it was prepared with --foreground-only: as a source, labels choose {seen} of {kept} training slices",
                "prepare a target without --foreground-only, since nobody knows which of its slices hold an organ"
                if self.target
                else "say so where scores are reported, and name it with --target if it is one",
            )
        ]  # fmt: skip

    def _damaged(self, error: BaseException) -> Finding:
        kind = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else 'no more is known'}"
        return Finding("error", "unreadable", f"is damaged, or was changed by hand ({kind})", AGAIN, self.name)


def agreement_findings(files: list[InFile]) -> list[Finding]:
    """What two prepared files that are to be trained on together must have in common, and how far their slices lie apart."""
    opened = [file.prepared for file in files if file.prepared is not None]
    found = []
    for one, other in zip(opened, opened[1:], strict=False):
        for name in ("organs", "size", "channels", "plane", "pixel_mm", "centre"):
            ours, theirs = getattr(one, name), getattr(other, name)
            if ours != theirs:
                found.append(
                    Finding(
                        "warning" if name in ("pixel_mm", "centre") else "error", "agreement",
                        f"{name} is {_words(ours)} in {one.path} and {_words(theirs)} in {other.path}",
                        "prepare both with the same options", str(other.path),
                    )
                )  # fmt: skip
    if evidence := stretched(opened):
        several = any(prepared.channels > 1 for prepared in opened)
        advice = INSTEAD if several else f"nothing to do for single slices; for --channels 3 or volumes {INSTEAD}"
        found.append(Finding("warning" if several else "note", "distances", evidence, advice, str(opened[-1].path)))
    return found


def differing(inside: Any, outside: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, value inside, value outside) wherever two documents differ; None where it is missing."""
    if isinstance(inside, dict) and isinstance(outside, dict):
        names = [*inside, *(key for key in outside if key not in inside)]
        return [
            found
            for key in names
            for found in differing(inside.get(key), outside.get(key), f"{name}.{key}" if name else key)
        ]
    if isinstance(inside, list) and isinstance(outside, list) and len(inside) == len(outside):
        return [
            found
            for n, pair in enumerate(zip(inside, outside, strict=True))
            for found in differing(*pair, f"{name}[{n}]")
        ]
    return [] if inside == outside else [(name, inside, outside)]


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else "not given" if value is None else str(value)
