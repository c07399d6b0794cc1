"""Compression of codes by principal components, after Babenko et al. 2014."""

from collections.abc import Iterator

import numpy as np
from sklearn.decomposition import PCA

from stages.measures.distances import l2_normalised


def compressed(
    codes: np.ndarray, seen: np.ndarray, dimensions: list[int], *, seed: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield the codes in fewer dimensions, as "Neural codes for image retrieval", section 3.3.

    Codes are scaled to unit length, turned to the principal components of the seen ones, cut,
    and scaled to unit length again. Whitened, each component is divided by its standard
    deviation over the seen codes before that (Jégou and Chum 2012, section 3).

    Args:
        codes: (n, dim), float32.
        seen: (m, dim), float32, codes of images of seen classes, to which alone the components
            are fitted.
        dimensions: to which to compress; those above `dim` or `m` - 1 are left out.
        seed: of the randomised decomposition, which scikit-learn takes for large ones.

    Yields:
        The dimensions, and codes float32 (n, dimensions) of unit length by their kind:
        `l2_normalised` and `whitened`.

    Raises:
        ValueError: when shapes do not fit or values are not finite.
    """
    possible = [each for each in dimensions if each <= min(seen.shape[1], len(seen) - 1)]
    if not possible:
        return
    with np.errstate(invalid="ignore"):  # shares of a variance of 0, for which nobody asks here
        fitted = PCA(max(possible), random_state=seed).fit(l2_normalised(seen))
    components = fitted.transform(l2_normalised(codes))
    deviations = np.sqrt(fitted.explained_variance_)
    # A direction in which the seen codes do not differ tells nothing: it is left as it is.
    deviations[deviations <= 1e-6 * deviations[0]] = 1
    for each in possible:
        cut = components[:, :each]
        yield (
            each,
            {
                "l2_normalised": l2_normalised(cut),
                "whitened": l2_normalised(cut / deviations[:each]),
            },
        )
