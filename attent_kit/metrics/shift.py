"""How far apart two domains are, from vectors that stand for slices. Arrays in, numbers out.

    proxy A-distance   2 (1 - 2 err), err of a linear classifier of the domains        Ben-David et al., NIPS 2006; 2010
    MMD                |mean phi(s) - mean phi(t)|^2, Gaussian kernel, unbiased        Gretton et al., JMLR 2012, eq. 3
    CORAL              |C_s - C_t|_F^2 / 4 d^2, C a covariance                         Sun and Saenko, ECCV Workshops 2016

Shapes: N slices, d numbers of a slice. `patients` says whose slice each is. Slices of one patient are alike, so a patient
is the unit: the classifier is tested on patients that it was not trained on, pairs of slices of one patient say nothing about
its domain and are left out of MMD, and the spread is over patients.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist, pdist

COMPONENTS = 32
"""Principal components of both domains together that the classifier is given."""
FOLDS, DEALS = 5, 5
"""Folds of patients, fewer where a domain has fewer, and how often patients are dealt into them."""
RIDGE = 0.1
"""Penalty of the classifier, in mean variances of a component."""
HALVINGS = 50
"""Random halves of the source patients that show what zero looks like."""
ZERO_PERCENT = 95


class Sample(NamedTuple):
    """Slices of one domain."""

    vectors: np.ndarray
    """[N, d]."""
    patients: np.ndarray
    """[N], any values that tell patients apart within the domain."""

    def only(self, patients: Sequence | np.ndarray) -> "Sample":
        """The slices of these patients."""
        kept = np.isin(self.patients, patients)
        return Sample(self.vectors[kept], self.patients[kept])


class Distance(NamedTuple):
    """One measure of two domains."""

    value: float
    spread: float
    """Standard error: the jackknife over patients of both domains (Efron and Stein 1981). NaN where it is not defined."""
    zero: float
    """95 % of the random halvings of the source patients measure less than this between their halves: what no shift looks like.
    Halves hold fewer patients than a domain, so it is rather too large. NaN where halves are too small to be measured."""


Measure = Callable[[Sample, Sample], float]


def shift(source: Sample, target: Sample, seed: int = 0) -> dict[str, Distance]:
    """All three measures of vectors in one unit, in which the mean variance of the source is 1: no measure depends on the scale.

    The classifier is given the first COMPONENTS principal components of both domains together. `mmd` is the square, in [0, 2]
    and around 0 where the domains are alike. `zero` is measured with the kernel and the components of `value`.
    """
    unit = np.sqrt(source.vectors.astype(np.float64).var(axis=0).mean()) or 1.0
    source, target = (s._replace(vectors=s.vectors.astype(np.float64) / unit) for s in (source, target))
    both = np.concatenate([source.vectors, target.vectors])
    width, components = median_distance(both), principal_components(both, COMPONENTS)
    kernel, first = _kernel(both, width), len(source.vectors)
    seen = source._replace(vectors=components[:first]), target._replace(vectors=components[first:])
    return {
        "proxy-a-distance": _measured(*seen, lambda s, t: proxy_a_distance(s, t, seed), seed),
        "mmd": _measured(*_rows(source, target), lambda s, t: _mmd(kernel, s, t), seed),
        "coral": _measured(source, target, lambda s, t: coral(s.vectors, t.vectors), seed),
    }


def _measured(source: Sample, target: Sample, measure: Measure, seed: int) -> Distance:
    between = [measure(a, b) for a, b in _halves(source, seed)]
    zero = float(np.percentile(between, ZERO_PERCENT)) if between and np.isfinite(between).all() else np.nan
    return Distance(measure(source, target), jackknife(source, target, measure), zero)


def proxy_a_distance(source: Sample, target: Sample, seed: int = 0) -> float:
    """0 where no line tells the domains apart, 2 where one does so without error; NaN for a domain of a single patient.

    The error is that of a ridge classifier, cross-validated over patients. Every patient counts the same, and so does each
    domain. An error above one half means that nothing was learned, and counts as one half.
    """
    folds = min(FOLDS, *(len(np.unique(s.patients)) for s in (source, target)))
    if folds < 2:
        return np.nan
    x = np.concatenate([source.vectors, target.vectors])
    y = np.repeat([1.0, -1.0], [len(source.vectors), len(target.vectors)])
    names, owner = np.unique(np.concatenate([_tagged(source, "s"), _tagged(target, "t")]), return_inverse=True)
    domain = np.array([y[owner == p][0] for p in range(len(names))])
    slices = np.bincount(owner)
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(names))
    for _ in range(DEALS):
        fold = np.empty(len(names), int)
        for side in (1.0, -1.0):
            own = np.flatnonzero(domain == side)
            fold[rng.permutation(own)] = np.arange(len(own)) % folds
        for held in range(folds):
            train, test = fold[owner] != held, fold[owner] == held
            answer = y[test] * _ridge(x[train], y[train], owner[train])(x[test])
            np.add.at(wrong, owner[test], np.where(answer == 0, 0.5, answer < 0))
    rates = wrong / slices / DEALS
    error = (rates[domain > 0].mean() + rates[domain < 0].mean()) / 2
    return float(max(2 * (1 - 2 * error), 0.0))


def _tagged(sample: Sample, domain: str) -> np.ndarray:
    """Patients of both domains may share names."""
    return np.array([f"{domain} {patient}" for patient in sample.patients])


def _ridge(x: np.ndarray, y: np.ndarray, owner: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Least squares on y = 1 and -1 with a penalty: a plane. Domains weigh the same, and so do the patients of one."""
    weight = np.empty(len(y))
    for side in (1.0, -1.0):
        patients, index, slices = np.unique(owner[y == side], return_inverse=True, return_counts=True)
        weight[y == side] = 0.5 / len(patients) / slices[index]
    centre = weight @ x
    z = x - centre
    covariance = (weight[:, None] * z).T @ z
    penalty = RIDGE * max(np.trace(covariance) / x.shape[1], 1e-12)
    normal = np.linalg.solve(covariance + penalty * np.eye(x.shape[1]), z.T @ (weight * y))
    return lambda new: (new - centre) @ normal


def mmd(source: Sample, target: Sample, width: float) -> float:
    """Unbiased squared MMD with exp(-|x - y|^2 / 2 width^2), below 0 at times where domains are alike; NaN as above.

    With one slice per patient it is Gretton's U-statistic; otherwise k(i, j) is the mean over the slices of patients i and j.
    """
    return _mmd(_kernel(np.concatenate([source.vectors, target.vectors]), width), *_rows(source, target))


def _mmd(kernel: np.ndarray, source: Sample, target: Sample) -> float:
    """The same, of a kernel [N, N] of all slices and two domains whose vectors are the numbers of their rows in it."""

    def between(a: Sample, b: Sample) -> np.ndarray:
        """Means over the slices of each pair of patients."""
        own = [np.unique(sample.patients, return_inverse=True)[1] for sample in (a, b)]
        left, right = (np.eye(index.max() + 1)[index] / np.bincount(index) for index in own)
        return left.T @ kernel[np.ix_(a.vectors[:, 0], b.vectors[:, 0])] @ right

    within = 0.0
    for sample in (source, target):
        means = between(sample, sample)
        n = len(means)
        within += (means.sum() - np.trace(means)) / (n * (n - 1)) if n > 1 else np.nan
    return float(within - 2 * between(source, target).mean())


def _rows(source: Sample, target: Sample) -> tuple[Sample, Sample]:
    """Numbers of the slices of both, one domain after the other, in place of their vectors."""
    rows = np.arange(len(source.vectors) + len(target.vectors))[:, None]
    return source._replace(vectors=rows[: len(source.vectors)]), target._replace(vectors=rows[len(source.vectors) :])


def _kernel(vectors: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-cdist(vectors, vectors, "sqeuclidean") / (2 * width**2)) if width else np.ones((len(vectors),) * 2)


def median_distance(vectors: np.ndarray) -> float:
    """Median Euclidean distance of two different rows, the usual width of the kernel; of those that differ, where most are
    alike; 0 if all are."""
    distances = pdist(vectors)
    apart = distances[distances > 0]
    if not apart.size:
        return 0.0
    return float(np.median(distances) or np.median(apart))


def coral(source: np.ndarray, target: np.ndarray) -> float:
    """Squared distance of the covariances [d, d] of [N, d], over 4 d^2; blind to where the means are. NaN for one slice."""
    if min(len(source), len(target)) < 2:
        return np.nan
    difference = np.atleast_2d(np.cov(source, rowvar=False)) - np.atleast_2d(np.cov(target, rowvar=False))
    return float((difference**2).sum() / (4 * source.shape[1] ** 2))


def jackknife(source: Sample, target: Sample, measure: Measure) -> float:
    """Standard error of a measure from leaving out one patient after another, in each domain; NaN where that cannot be."""
    variance = 0.0
    for sample, of in ((source, lambda s: measure(s, target)), (target, lambda t: measure(source, t))):
        patients = np.unique(sample.patients)
        n = len(patients)
        if n < 2:
            return np.nan
        values = np.array([of(sample.only(np.delete(patients, i))) for i in range(n)])
        variance += (n - 1) / n * ((values - values.mean()) ** 2).sum()
    return float(np.sqrt(variance))


def principal_components(vectors: np.ndarray, count: int) -> np.ndarray:
    """Coordinates along the directions of most variance: [N, d] -> [N, at most `count`]. Of each direction the entry that is
    farthest from 0 is positive, so that pictures are not mirrored by chance."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:count]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], axis=1)
    return centred @ (directions * np.where(largest < 0, -1.0, 1.0)).T


def _halves(sample: Sample, seed: int) -> list[tuple[Sample, Sample]]:
    patients = np.unique(sample.patients)
    rng = np.random.default_rng((seed, 1))
    half = len(patients) // 2
    dealt = [rng.permutation(patients) for _ in range(HALVINGS if half else 0)]
    return [(sample.only(p[:half]), sample.only(p[half:])) for p in dealt]
