"""The picture of one root group: its matrices, confidences, refined similarities, and where it is cut.

Drawn from what `group_view.view_group` shows; needs the extra `notebook`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from faceclust_spark.kernels.diagnostics import UNKNOWN, number_labels
from faceclust_spark.views.pictures import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from faceclust_spark.views.group_view import GroupView

_SIZE = (10.0, 9.0)  # inches
_CUT = "#D55E00"
_MARKERS = ("o", "s", "^", "D", "v")


def draw_group(view: GroupView, labels: Sequence[Any] | None = None) -> Figure:
    """Draw a root group in four panels; faces stand by cluster, and lines are drawn between clusters.

    Face similarities, attribute similarities, refined similarities (probability of one person), and each
    face's confidence at each threshold. With labels, of the whole gallery as it was given, the person of each
    face is marked beside the matrices: a colour a person. Of groups of more than `confidences.dense_size`
    faces some pairs are scored; the others stay white.
    """
    figure: Figure
    figure, panels = pyplot().subplots(2, 2, figsize=_SIZE, layout="constrained")
    ends = np.flatnonzero(np.diff(view.clusters)) + 0.5
    count = len(view.rows)
    _square(panels[0, 0], view.cosines, ends, "cosine of face features", (-0.2, 1.0))
    if view.attributes is None:
        panels[0, 1].set_axis_off()
        panels[0, 1].set_title("no attributes", fontsize="medium")
    else:
        _square(panels[0, 1], view.attributes, ends, "cosine of attributes", (-1.0, 1.0))
    gaps = "; white: not scored" if np.isnan(view.probabilities).any() else ""
    _square(panels[1, 0], view.probabilities, ends, f"refined: probability of one person{gaps}", (0.0, 1.0))
    if labels is not None:
        person = number_labels(labels, len(labels))[view.rows]
        for ax in (panels[0, 0], panels[1, 0]):
            _mark_people(ax, person)
    _confidences(panels[1, 1], view, ends)
    found = len(np.unique(view.clusters))
    figure.suptitle(f"A root group of {count} faces and the {found} clusters that it is cut into")
    return figure


def _square(
    ax: Axes, matrix: NDArray[np.float32], ends: NDArray[np.floating], title: str, limits: tuple[float, float]
) -> None:
    image = ax.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap="viridis", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    for end in ends:
        ax.axhline(end, color=_CUT, linewidth=0.8)
        ax.axvline(end, color=_CUT, linewidth=0.8)
    ax.set_title(title, fontsize="medium")
    ax.set_xlabel("face, by cluster")
    ax.set_ylabel("face, by cluster")


def _mark_people(ax: Axes, person: NDArray[np.int64]) -> None:
    """Draw a strip beside the rows, of a colour for each person; unknown ones are left white."""
    _, colour = np.unique(person, return_inverse=True)
    shades = pyplot().get_cmap("tab20")(colour % 20)
    shades[person == UNKNOWN] = 1.0
    strip = ax.inset_axes((-0.045, 0.0, 0.03, 1.0))
    strip.imshow(shades[:, None], aspect="auto", interpolation="nearest")
    strip.set_axis_off()
    ax.tick_params(axis="y", labelleft=False, left=False)
    ax.set_ylabel("face, by cluster; colour: person", labelpad=14)


def _confidences(ax: Axes, view: GroupView, ends: NDArray[np.floating]) -> None:
    for number, (threshold, confidences) in enumerate(zip(view.thresholds, view.confidences, strict=True)):
        marker = _MARKERS[number % len(_MARKERS)]
        ax.plot(confidences, marker, markersize=4, markerfacecolor="none", label=f"{threshold:.2f}")
    for end in ends:
        ax.axvline(end, color=_CUT, linewidth=0.8)
    ax.set_ylim(-0.03, 1.03)
    ax.set_title("confidence that a face is assigned to its coarse group", fontsize="medium")
    ax.set_xlabel("face, by cluster")
    ax.set_ylabel("confidence")
    ax.legend(title="first threshold", frameon=False, fontsize="small")
