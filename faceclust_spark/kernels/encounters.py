"""Who meets whom in a round: small clusters, and the larger ones that their images' neighbours lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.meetings import Meetings, places_in_runs

if TYPE_CHECKING:
    from faceclust_spark.config import RoundsConfig
    from faceclust_spark.kernels.neighbours import NeighbourLists

LINKS = 20  # nearest neighbours of an image that lead to hosts


class Links(NamedTuple):
    """From each face to its nearest LINKS neighbours, by rows of the gallery."""

    first: NDArray[np.int64]  # (e,)
    second: NDArray[np.int64]  # (e,)
    cosine: NDArray[np.float32]  # (e,)


def neighbour_links(face_ids: NDArray[np.int64], lists: NeighbourLists) -> Links:
    """Take the links of a gallery from its neighbour lists. Shapes: `(n,)` ascending."""
    lengths = np.diff(lists.offsets)
    place = np.arange(lists.offsets[-1]) - np.repeat(lists.offsets[:-1], lengths)
    near = place < LINKS
    first = np.repeat(np.searchsorted(face_ids, lists.face_ids), lengths)[near]
    return Links(first, np.searchsorted(face_ids, lists.neighbours[near]), lists.cosines[near])


def find_meetings(
    cluster: NDArray[np.int64], sizes: NDArray[np.int64], links: Links, config: RoundsConfig
) -> Meetings:
    """Give each small cluster the `hosts` larger clusters that its images are nearest to.

    By the best link, then the number of links, then the smaller label. Of two of one size, the one with the
    smaller label is the host.
    """
    a, b = cluster[links.first], cluster[links.second]
    larger = (sizes[b] > sizes[a]) | ((sizes[b] == sizes[a]) & (b < a))
    kept = larger & (a != b) & (sizes[a] <= config.largest_visitor)
    code, cosine = a[kept] * len(sizes) + b[kept], links.cosine[kept]
    order = np.lexsort((-cosine, code))
    code, starts, counts = np.unique(code[order], return_index=True, return_counts=True)
    best = cosine[order][starts]
    visitor, host = code // len(sizes), code % len(sizes)
    order = np.lexsort((host, -counts, -best, visitor))
    order = order[places_in_runs(visitor[order]) < config.hosts]
    return Meetings(visitor[order], host[order], counts[order])


def photo_partners(cluster: NDArray[np.int64], photos: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Give cluster * count + other for all clusters that show a photo in common."""
    rows = np.flatnonzero(photos >= 0)
    order = rows[np.argsort(photos[rows], kind="stable")]
    found = []
    for step in range(1, len(order)):
        same = photos[order[step:]] == photos[order[:-step]]
        if not same.any():
            break
        one, other = cluster[order[step:][same]], cluster[order[:-step][same]]
        found += [one * count + other, other * count + one]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
