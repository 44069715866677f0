"""Everything a layout may use of attent-kit to find and read the cases of a data set. This list is complete.

    from attent_kit.layouts import Entry, LabelMap, Layout, Scan, read_labels, read_volume

What is not named here is internal and may change with any release. No torch here.
"""

from attent_kit.data.doubts.slice_order import CLEAR_EVIDENCE, slice_order_evidence
from attent_kit.data.scans.dicom import DICOM_ENDINGS, Series, choose_series, find_series, read_series
from attent_kit.data.scans.dicom_file import is_dicom
from attent_kit.data.scans.dicom_seg import SegmentationFile, find_segmentations, read_segmentation
from attent_kit.data.scans.grids import same_grid
from attent_kit.data.scans.pictures import natural, read_picture
from attent_kit.data.scans.volumes import Volume, integers, read_labels, read_volume
from attent_kit.data.sets.labelmap import TASK_ORGANS, LabelMap
from attent_kit.data.sets.layout import Entry, Layout, Scan
from attent_kit.data.sets.mask_stack import CHAOS_GREY_BANDS
from attent_kit.data.sets.pairs import Pair, find_pairs, is_label
from attent_kit.data.sets.splits import SPLITS
from attent_kit.data.sets.synonyms import organ_called, plainly
from attent_kit.reading import csv_in, json_in, text_of

__all__ = [
    # The interface, and what its methods answer.
    "Entry", "LabelMap", "Layout", "SPLITS", "Scan", "TASK_ORGANS", "Volume",
    # Files: NIfTI, pictures, DICOM series and segmentations.
    "integers", "read_labels", "read_picture", "read_volume", "same_grid",
    "DICOM_ENDINGS", "Series", "choose_series", "find_series", "is_dicom", "read_series",
    "SegmentationFile", "find_segmentations", "read_segmentation",
    # Lists and facts beside them, as text.
    "csv_in", "json_in", "text_of",
    # Which files belong together, and in which order.
    "CHAOS_GREY_BANDS", "CLEAR_EVIDENCE", "Pair", "slice_order_evidence", "find_pairs", "is_label", "natural",
    # Which organ a file, a folder or a segment is named after.
    "organ_called", "plainly",
]  # fmt: skip
