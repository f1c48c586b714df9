"""Why two faces are, or are not, together: the facts, and their reading in words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

_LINKS_SHOWN = 5  # for and against, each
_STEPS_SHOWN = 12  # of the strongest path; `to_dict` holds all


@dataclass(frozen=True)
class ExplainedFace:
    """One of the two faces.

    runner_up: its next best cluster, margin: the log-odds by which its own is ahead; None where none is
    known. rank: the other face's place among its neighbours, 1 = nearest.
    """

    image_id: str
    cluster_id: str
    cluster_size: int
    status: str
    confidence: float
    runner_up: str | None
    margin: float | None
    root_group_size: int
    neighbours: int
    rank: int | None


@dataclass(frozen=True)
class Step:
    """A link of the strongest path."""

    image_a: str
    image_b: str
    cosine: float


@dataclass(frozen=True)
class GroupsAt:
    """The coarse groups of both faces at one first threshold, and their confidences there.

    level: the cosine that each group is held together by.
    """

    threshold: float
    same_group: bool
    size_a: int
    size_b: int
    level_a: float
    level_b: float
    confidence_a: float
    confidence_b: float


@dataclass(frozen=True)
class Link:
    """A refined pair that weighed in: log-odds of `same person`, natural units."""

    image_a: str
    image_b: str
    log_odds: float


@dataclass(frozen=True)
class Similarity:
    """Cosine similarities of the two, higher is closer; attributes None where either has none."""

    faces: float
    attributes: float | None
    fused: float


@dataclass(frozen=True)
class Compared:
    """What refining said of the two faces.

    in_one_root: whether they were compared at all. log_odds: of the pair itself; None where it was not
    scored. links: scored pairs of either face with members of the other's cluster, highest first.
    pairs_between, log_odds_between: number of scored pairs between their two clusters and the sum of
    their log-odds; None where they share a cluster. bias: what each pair must exceed to count for one
    person (clusters.bias). shared_photos: photos with a face of either cluster.
    """

    in_one_root: bool = False
    log_odds: float | None = None
    links: tuple[Link, ...] = ()
    pairs_between: int | None = None
    log_odds_between: float | None = None
    bias: float = 0.0
    shared_photos: int = 0

    @property
    def strongest_for(self) -> tuple[Link, ...]:
        """Give the pairs that speak most for one person."""
        return tuple(link for link in self.links if link.log_odds > self.bias)[:_LINKS_SHOWN]

    @property
    def strongest_against(self) -> tuple[Link, ...]:
        """Give the pairs that speak most against one person."""
        return tuple(link for link in reversed(self.links) if link.log_odds < self.bias)[:_LINKS_SHOWN]


@dataclass(frozen=True)
class Meeting:
    """A small cluster that was compared, in a round, with a larger one: log-odds of one person.

    Both are named by the image of their smallest face id. visitor_size: faces of the small one.
    """

    round: int
    visitor: str
    visitor_size: int
    host: str
    log_odds: float
    joined: bool


@dataclass(frozen=True)
class Explanation:
    """Everything that bore on whether two faces are in one cluster.

    path: the strongest chain of neighbours between the two; empty where none connects them. meetings: of
    the small clusters that rounds made their cluster of, or that rounds compared where they are apart.
    least_log_odds: what a meeting must exceed to join (rounds.least_log_odds).
    """

    a: ExplainedFace
    b: ExplainedFace
    similarity: Similarity
    path: tuple[Step, ...]
    groups: tuple[GroupsAt, ...]
    compared: Compared
    meetings: tuple[Meeting, ...] = ()
    least_log_odds: float = 0.0

    @property
    def together(self) -> bool:
        """Tell whether the two are in one cluster."""
        return self.a.cluster_id == self.b.cluster_id

    @property
    def weakest_step(self) -> Step | None:
        """Give the weakest link of the strongest path: the highest cosine that connects the two."""
        return min(self.path, key=lambda step: step.cosine, default=None)

    @property
    def verdict(self) -> str:
        """Give the reason in one sentence."""
        if self.together:
            return "Together: " + self._why_together()
        return "Apart: " + (self._why_parted() if self.compared.in_one_root else self._why_not_met())

    def to_dict(self) -> dict[str, Any]:
        """Give the explanation as JSON-ready values."""
        weakest = self.weakest_step
        compared = asdict(self.compared)
        del compared["links"]
        for name in ("strongest_for", "strongest_against"):
            compared[name] = [asdict(link) for link in getattr(self.compared, name)]
        return {
            "together": self.together,
            "verdict": self.verdict,
            **asdict(self),
            "compared": compared,
            "weakest_step": None if weakest is None else asdict(weakest),
        }

    def __str__(self) -> str:
        parts = [
            [self.verdict],
            [*_face_lines(self.a, self.b), *_face_lines(self.b, self.a)],
            _similarity_lines(self),
            _path_lines(self),
            ["Coarse groups", *(_group_line(at) for at in self.groups)],
            _link_lines(self.compared),
            *([_meeting_lines(self.meetings)] if self.meetings else []),
        ]
        return "\n\n".join("\n".join(lines) for lines in parts)

    def _why_together(self) -> str:
        if not self.compared.in_one_root:
            return "a round joined their clusters, across root groups"
        if self.compared.log_odds is None:
            return "the pair itself was not scored; links to others of the cluster hold it"
        if self.compared.log_odds > self.compared.bias:
            return "the pair itself speaks for one person"
        return "the pair itself speaks against one person, but links to others of the cluster hold it"

    def _why_parted(self) -> str:
        if self.compared.shared_photos:
            photos = _count(self.compared.shared_photos, "photo")
            return f"{photos} with a face of either cluster: two faces of one photo stay apart"
        needed = self.compared.bias * (self.compared.pairs_between or 0)
        if (self.compared.log_odds_between or 0.0) < needed:
            return "they were compared, and the pairs between their clusters speak against one person"
        return "they were compared, but what linked their clusters was too weak to join them"

    def _why_not_met(self) -> str:
        if any(one.log_odds > self.least_log_odds for one in self.meetings):
            return (
                "a round held them for one person, but the larger cluster joined a third one itself, or a "
                "likelier visitor shows the same photo"
            )
        if self.meetings:
            return "a round compared their clusters, and held them for two people"
        lowest = self.groups[0].threshold
        weakest = self.weakest_step
        if weakest is None:
            return "never compared, since no chain of neighbours connects them at all"
        if weakest.cosine < lowest:
            return (
                f"never compared, since the strongest chain between them is {weakest.cosine:.3f} at its "
                f"weakest, below the lowest threshold {lowest:.3f}"
            )
        return (
            f"never compared: a chain of at least {weakest.cosine:.3f} connects them, but their group "
            "would have grown too large and was kept in parts (coarse_groups.max_size)"
        )


def _face_lines(face: ExplainedFace, other: ExplainedFace) -> list[str]:
    where = f"cluster {face.cluster_id} of {_count(face.cluster_size, 'face')}"
    rank = (
        f"{other.image_id} is its neighbour {face.rank} of {face.neighbours}"
        if face.rank
        else f"{other.image_id} is not among its {_count(face.neighbours, 'neighbour')}"
    )
    sure = f"{face.status}, confidence {face.confidence:.2f}"
    lines = [f"{face.image_id}: {where}, {sure}", f"  {rank}"]
    if face.runner_up is not None and face.margin is not None:
        way = "behind" if face.margin >= 0 else "ahead of its own"
        lines.append(f"  next best: cluster {face.runner_up}, log-odds {abs(face.margin):.2f} {way}")
    return lines


def _similarity_lines(found: Explanation) -> list[str]:
    own = found.similarity
    attributes = "none" if own.attributes is None else f"{own.attributes:.3f}"
    lines = [
        "Similarity",
        f"  faces {own.faces:.3f}, attributes {attributes}, fused {own.fused:.3f} (for literal models)",
    ]
    if found.compared.log_odds is not None:
        lines.append(f"  refined: {_odds(found.compared.log_odds)}")
    return lines


def _path_lines(found: Explanation) -> list[str]:
    weakest = found.weakest_step
    if weakest is None:
        return ["Strongest path", "  none: no chain of neighbours connects the two at all"]
    head = f"  {_count(len(found.path), 'step')}, the weakest at {weakest.cosine:.3f}"
    shown = [f"    {step.image_a} - {step.image_b}  {step.cosine:.3f}" for step in found.path[:_STEPS_SHOWN]]
    hidden = len(found.path) - len(shown)
    return ["Strongest path", head, *shown, *([f"    and {hidden} more"] if hidden else [])]


def _group_line(at: GroupsAt) -> str:
    sure = f"confidences {at.confidence_a:.2f} and {at.confidence_b:.2f}"
    if at.same_group:
        return f"  at {at.threshold:.3f}: one group of {at.size_a}; {sure}"
    return f"  at {at.threshold:.3f}: apart, groups of {at.size_a} and {at.size_b}; {sure}"


def _link_lines(compared: Compared) -> list[str]:
    lines = ["Links that decided"]
    if not compared.in_one_root:
        return [*lines, "  none: the two were never compared"]
    if compared.pairs_between is not None:
        pairs = _count(compared.pairs_between, "scored pair")
        needed = compared.bias * compared.pairs_between
        total = f"log-odds sum to {compared.log_odds_between:+.1f}, to join takes {needed:+.1f}"
        lines.append(f"  between the two clusters: {pairs}, {total}")
    for word, links in (("for", compared.strongest_for), ("against", compared.strongest_against)):
        lines += [f"  {word:<8}{k.image_a} - {k.image_b}: {_odds(k.log_odds)}" for k in links]
    return lines


def _meeting_lines(meetings: tuple[Meeting, ...]) -> list[str]:
    shown = sorted(meetings, key=lambda one: -one.log_odds)[:_LINKS_SHOWN]
    lines = [
        f"  round {one.round}: {_count(one.visitor_size, 'face')} of {one.visitor} "
        f"{'joined' if one.joined else 'did not join'} the cluster of {one.host}: {_odds(one.log_odds)}"
        for one in shown
    ]
    hidden = len(meetings) - len(shown)
    return ["Rounds", *lines, *([f"  and {hidden} more"] if hidden else [])]


def _odds(log_odds: float) -> str:
    probability = 1 / (1 + math.exp(-log_odds))
    return f"log-odds {log_odds:+.2f} ({probability:.1%} same person)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
