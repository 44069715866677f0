"""Public data sets as people download them, a few small cases each: names, folders and label values are theirs."""

import numpy as np

from support.layout_folders import attent_png, body, btcv, msd, nnunet, sifa_npz, totalsegmentator, write_nifti

MMWHS = (500, 600, 420, 550, 205, 820, 850)


def _values(labels, values):
    """Classes 1 to 4 of `body` as the values of a data set."""
    return np.array((0, *values), np.int16)[labels]


def _case(folder, image, labels, number, values, seed):
    """An image and its label map under these names; without a name no label map."""
    grey, classes = body(seed)
    write_nifti(folder / image.format(number), grey)
    if labels:
        write_nifti(folder / labels.format(number), _values(classes, values))


def amos(folder, train=(1, 4, 507, 508), validation=(8, 530), test=(), channel=""):
    """Spleen 1, right kidney 2, left kidney 3, liver 6."""
    for kind, numbers in (("Tr", train), ("Va", validation), ("Ts", test)):
        for number in numbers:
            labels = None if kind == "Ts" else f"labels{kind}/amos_{{:04}}.nii.gz"
            _case(folder, f"images{kind}/amos_{{:04}}{channel}.nii.gz", labels, number, (6, 2, 3, 1), number)
    return folder


FLARE = (1, 2, 13, 3)
"""Values of FLARE: liver, right kidney, left kidney, spleen."""


def flare22(folder):
    """Two labelled CT and one without labels, below Training."""
    for number in (1, 2):
        home = folder / "Training" / "FLARE_LabeledCase50"
        names = "images/FLARE22_Tr_{:04}_0000.nii.gz", "labels/FLARE22_Tr_{:04}.nii.gz"
        _case(home, *names, number, FLARE, number)
    _case(folder / "Training" / "FLARE_UnlabeledCase1-1000", "Case_{:05}_0000.nii.gz", None, 1, FLARE, 3)
    return folder


def flare24(folder):
    """MR of Task 3, 2024: two without labels, one of the validation set."""
    training = folder / "FLARE24-Task3-MR" / "Training"
    _case(training / "AMOS_MR_good_spacing-833", "amos_{}_0000.nii.gz", None, 7524, FLARE, 4)
    _case(training / "LLD-MMRI-3984", "MR-{}_C+A_0000.nii.gz", None, 391135, FLARE, 5)
    names = "imagesVal/amos_{}_0000.nii.gz", "labelsVal/amos_{}.nii.gz"
    _case(folder / "FLARE24-Task3-MR" / "PublicValidation", *names, 7296, FLARE, 6)
    return folder


def flare25(folder):
    """All of Task 3, 2025, with pseudo-labels of two networks, of which one is wrong about the spleen."""
    for number in (1, 2):
        names = "imagesTr/FLARE22_Tr_{:04}_0000.nii.gz", "labelsTr/FLARE22_Tr_{:04}.nii.gz"
        _case(folder / "train_CT_gt_label", *names, number, FLARE, number)
        pseudo = folder / "train_CT_pseudolabel"
        names = "imagesTr/Case_{:05}_0000.nii.gz", "pseudo_label_blackbean_flare22/Case_{:05}.nii.gz"
        _case(pseudo, *names, number, FLARE, 10 + number)
        wrong = _values(body()[1], (1, 2, 13, 11))
        write_nifti(pseudo / "flare22_aladdin5_pseudo" / f"Case_{number:05}.nii.gz", wrong)
        _case(folder / "train_PET_unlabeled", "fdg_{}_0000.nii.gz", None, number, FLARE, 20 + number)
    _case(folder / "train_MRI_unlabeled" / "AMOS-833", "amos_{}_0000.nii.gz", None, 7524, FLARE, 30)
    _case(folder / "train_MRI_unlabeled" / "LLD-MMRI-3984", "MR-{}_T2WI_0000.nii.gz", None, 391135, FLARE, 31)
    for kind, number in (("MRI", 7296), ("PET", 99)):
        names = f"{kind}_imagesVal/case_{{}}_0000.nii.gz", f"{kind}_labelsVal/case_{{}}.nii.gz"
        _case(folder / "validation", *names, number, FLARE, 40)
    return folder


def mmwhs(folder, train=(1001, 1002), test=(2001,)):
    """CT and MR; the four boxes are four of the seven structures."""
    for modality in ("ct", "mr"):
        for number in train:
            names = f"{modality}_train_{{}}_image.nii.gz", f"{modality}_train_{{}}_label.nii.gz"
            _case(folder / f"{modality}_train", *names, number, (500, 600, 420, 850), number)
        for number in test:
            _case(folder / f"{modality}_test", f"{modality}_test_{{}}_image.nii.gz", None, number, (), number)
    return folder


def brats(folder, ids=("BraTS-GLI-00000-000", "BraTS-GLI-00001-000"), values=(1, 2, 3, 3)):
    """Since 2023: each sequence has noise of its own."""
    return _brats(folder, ids, values, "-", ("t1n", "t1c", "t2w", "t2f"))


def old_brats(folder, ids=("BraTS2021_00000", "BraTS2021_00002"), values=(1, 2, 4, 4), seed=0):
    """To 2021: other names, other separator, 4 for the enhancing tumor."""
    return _brats(folder, ids, values, "_", ("t1", "t1ce", "t2", "flair"), seed)


def _brats(folder, ids, values, between, sequences, seed=0):
    for number, id in enumerate(ids, start=seed):
        for n, sequence in enumerate(sequences):
            write_nifti(folder / id / f"{id}{between}{sequence}.nii.gz", body(10 * number + n)[0])
        write_nifti(folder / id / f"{id}{between}seg.nii.gz", _values(body()[1], values))
    return folder


SPELLED = {1: "liver", 2: "right_kidney", 3: "LK", 4: "spleen_mask"}
"""Files of masks by class, as somebody may call them."""


def organ_masks(folder, cases=("p1", "p2"), inner="", spelled=SPELLED, image="ct"):
    """An image and a mask file an organ, beside it or in the folder `inner`."""
    for number, case in enumerate(cases):
        grey, labels = body(number)
        write_nifti(folder / case / f"{image}.nii.gz", grey)
        for value, name in spelled.items():
            write_nifti(folder / case / inner / f"{name}.nii.gz", np.uint8(255) * (labels == value))
    return folder


def ircadb(folder, cases=(1, 2), organs=None, nested=False, turned=True):
    """DICOM series, the masks with 255; names of slices run against their positions in the masks if `turned`."""
    from support.dicom_slices import write_series

    organs = organs or {1: "liver", 2: "rightkidney", 3: "leftkidney", 4: "spleen"}
    for number in cases:
        grey, labels = body(number)
        home = folder / f"3Dircadb1.{number}"
        count = labels.shape[2]
        names = [f"image_{z}" for z in range(count)]
        tags = {"PixelSpacing": [2.0, 2.0], "SeriesInstanceUID": f"1.2.3.{number}"}
        image = home / "PATIENT_DICOM" / ("PATIENT_DICOM" if nested else "")
        write_series(image, (grey + 200).astype(np.uint16), names, **tags, RescaleIntercept=-200)
        for value, organ in organs.items():
            mask = (255 * (labels == value)).astype(np.uint16)
            place = home / "MASKS_DICOM" / ("MASKS_DICOM" if nested else "") / organ
            write_series(
                place, mask, names[::-1] if turned else names, **tags | {"SeriesInstanceUID": f"1.2.4.{number}.{value}"}
            )
    return folder


def series(folder, seed=1):
    """One CT as a DICOM series."""
    from support.dicom_slices import write_series

    grey, _ = body(seed)
    write_series(folder, (grey + 200).astype(np.uint16), PixelSpacing=[2.0, 2.0], RescaleIntercept=-200)
    return folder


def write_all(home):
    """Every data set of the page about them, under the name that the page has for it; CHAOS lies elsewhere."""
    btcv(home / "BTCV" / "RawData" / "Training")
    amos(home / "amos22")
    flare22(home / "FLARE22")
    flare25(home / "FLARE-Task3-DomainAdaption")
    ircadb(home / "3Dircadb1")
    totalsegmentator(home / "Totalsegmentator_dataset")
    mmwhs(home / "MM-WHS")
    brats(home / "BraTS2023")
    old_brats(home / "BraTS2021")
    nnunet(home / "Dataset017_Abdomen")
    msd(home / "Task03_Liver")
    organ_masks(home / "masks")
    series(home / "series")
    attent_png(home / "mri_dataset")
    sifa_npz(home / "sifa")
    for number in (1, 2):
        grey, labels = body(number)
        write_nifti(home / "scans" / f"{number}.nii.gz", grey)
        write_nifti(home / "drawn" / f"{number}.nii.gz", labels)
