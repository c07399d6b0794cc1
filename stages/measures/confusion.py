"""Confusion: of which class the image is that was chosen, by the class of the query."""

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform


def choice_rates(distances: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Return how often an image of each class was chosen for queries of each class.

    Args:
        distances: (tasks, ways), of each support image from the query; the nearest is chosen,
            and of n equally near ones each counts 1/n.
        classes: int (tasks, 1 + ways), from 0 to `count` - 1: of the query, then of each support
            image. Several may be alike: classes may be groups of them.
        count: number of classes.

    Returns:
        float64 (count, count), a row for each class of query, adding up to 1; in a row without
        a query nan. Where each task has an image of every class, the diagonal is the one-shot
        accuracy of each class.

    Raises:
        ValueError: when shapes do not fit.
    """
    if classes.shape != (len(distances), 1 + distances.shape[1]):
        raise ValueError(
            "classes must be (tasks, 1 + ways) with distances (tasks, ways). "
            f"Received: classes.shape={classes.shape}, distances.shape={distances.shape}"
        )
    nearest = distances == distances.min(axis=1, keepdims=True)
    share = nearest / nearest.sum(axis=1, keepdims=True)
    place = classes[:, :1] * count + classes[:, 1:]
    chosen = np.bincount(place.ravel(), share.ravel(), count * count).reshape(count, count)
    queries = np.bincount(classes[:, 0], minlength=count)[:, None]
    return np.where(queries > 0, chosen / np.maximum(queries, 1), np.nan)


def likeness_order(rates: np.ndarray) -> np.ndarray:
    """Return an order of the classes in which those taken for each other stand together.

    Classes are joined by average linkage, the nearer the more often one is taken for the other,
    and laid out so that neighbours are as near as can be (Bar-Joseph et al. 2001, "Fast optimal
    leaf ordering for hierarchical clustering").

    Args:
        rates: (count, count), see `choice_rates`.

    Returns:
        int (count,): the classes, each once.
    """
    mutual = np.nan_to_num(rates + rates.T) / 2
    np.fill_diagonal(mutual, 0)
    if len(mutual) < 3:
        return np.arange(len(mutual))
    apart = mutual.max() - mutual
    np.fill_diagonal(apart, 0)
    return leaves_list(linkage(squareform(apart), "average", optimal_ordering=True))
