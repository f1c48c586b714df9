"""What a meeting of clusters looks like, against plain loops over all pairs of their images."""

import numpy as np
import pytest

from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.meetings import (
    ATTRIBUTE_INPUTS,
    FACE_INPUTS,
    GALLERY_INPUTS,
    HOST_INPUTS,
    LARGE,
    MEETING_INPUTS,
    NORM_INPUTS,
    RANKED,
    Census,
    Clusters,
    Meetings,
    meeting_inputs,
    rank_hosts,
    take_census,
)
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.norms import NormScale, standardise_norms

SCALE = Scale(mean=0.02, standard_deviation=0.11, norms=NormScale(2.7, 0.12))
CENSUS = Census(faces=900, clusters=300, alone=210, in_large=400)


def draw(seed, sizes=(1, 3, 8, 20), width=5):
    generator = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    centres = generator.normal(size=(len(sizes), 48))
    raw = np.repeat(centres, sizes, axis=0) + 1.2 * generator.normal(size=(starts[-1], 48))
    attributes = generator.normal(size=(starts[-1], width)).astype(np.float32)
    attributes[generator.random(attributes.shape) < 0.3] = np.nan
    norms = np.exp(generator.normal(2.7, 0.12, size=starts[-1])).astype(np.float32)
    norms[generator.random(len(norms)) < 0.2] = np.nan
    clusters = Clusters(starts, np.array(sizes) * 3, quantise(normalise(raw)), attributes, norms)
    return clusters, Meetings(np.array([0, 0, 1, 2]), np.array([2, 3, 3, 3]), np.array([1, 4, 2, 9]))


def s_of(one, other):
    return (cosine_matrix(one, other).astype(np.float64) - SCALE.mean) * 0.1 / SCALE.standard_deviation


def inside(vectors):
    """Give each image's mean and best s to the others."""
    s = s_of(vectors, vectors)
    others = [np.delete(row, place) for place, row in enumerate(s)]
    return np.array([row.mean() for row in others]), np.array([row.max() for row in others])


@pytest.mark.parametrize("seed", range(4))
def test_face_inputs_equal_loops(seed):
    clusters, meetings = draw(seed)
    inputs = meeting_inputs(clusters, meetings, SCALE, CENSUS)
    assert inputs.shape == (4, MEETING_INPUTS) and inputs.dtype == np.float32
    for row, visitor, host, links in zip(inputs, *meetings, strict=True):
        a, b = (clusters.vectors[clusters.starts[x] : clusters.starts[x + 1]] for x in (visitor, host))
        s = s_of(a, b)
        ordered = np.sort(s.ravel())[::-1]
        centre = centroid_s(a, b)
        assert row[0] == pytest.approx(centre, abs=1e-5)
        tops = [ordered[:count].mean() for count in (len(ordered), 1, 3, 5, 10)]
        assert row[1:6] == pytest.approx(tops, abs=1e-5)
        quarters = [ordered[(q * (len(ordered) - 1)) // 4] for q in (1, 2, 3)]
        assert row[6:9] == pytest.approx(quarters, abs=1e-5)
        assert row[9:11] == pytest.approx([s.max(1).mean(), s.max(1).min()], abs=1e-5)
        assert row[11:13] == pytest.approx(np.log(clusters.sizes[[visitor, host]]), abs=1e-5)
        means, bests = inside(b)
        own = inside(a)[0].mean() if len(a) > 1 else 0.0
        assert row[13:15] == pytest.approx([own, means.mean()], abs=1e-5)
        assert row[15:17].tolist() == [len(a) > 1, True]
        relative = [s.mean() - means.mean(), (means < s.mean()).mean()]
        relative += [s.max(1).mean() - bests.mean(), (bests < s.max(1).mean()).mean(), s.mean() - means.min()]
        assert row[17:22] == pytest.approx(relative, abs=1e-5)
        size = clusters.sizes[visitor] * min(clusters.sizes[host], 40)
        assert row[22:24] == pytest.approx([np.log1p(links), links / size], abs=1e-5)


def centroid_s(a, b):
    one, other = a.astype(np.float64).sum(0), b.astype(np.float64).sum(0)
    cosine = one @ other / np.sqrt((one @ one) * (other @ other))
    return (cosine - SCALE.mean) * 0.1 / SCALE.standard_deviation


@pytest.mark.parametrize("seed", range(4))
def test_attribute_inputs_equal_loops_and_follow_neither_order_nor_width(seed):
    clusters, meetings = draw(seed)
    inputs = meeting_inputs(clusters, meetings, SCALE, CENSUS)[
        :, FACE_INPUTS : FACE_INPUTS + ATTRIBUTE_INPUTS
    ]
    typical = [
        [column[~np.isnan(column)].mean() if (~np.isnan(column)).any() else np.nan for column in part.T]
        for part in np.split(clusters.attributes.astype(np.float64), clusters.starts[1:-1])
    ]
    for row, visitor, host in zip(inputs, meetings.visitor, meetings.host, strict=True):
        both = np.array([typical[visitor], typical[host]])
        one, other = both[:, ~np.isnan(both).any(axis=0)]
        gaps = np.sort(np.minimum(np.abs(one - other), 6))
        expected = [one @ other / np.sqrt((one @ one) * (other @ other)), gaps.mean()]
        expected += [np.sqrt((gaps**2).mean()), gaps[min(len(gaps) - 1, len(gaps) * 4 // 5)], 1.0]
        assert row == pytest.approx(expected, abs=1e-5)
    turned = clusters._replace(attributes=np.ascontiguousarray(clusters.attributes[:, ::-1]))
    again = meeting_inputs(turned, meetings, SCALE, CENSUS)[:, FACE_INPUTS : FACE_INPUTS + ATTRIBUTE_INPUTS]
    assert again == pytest.approx(inputs, abs=1e-6)


def test_without_attributes_their_inputs_are_zero():
    clusters, meetings = draw(0, width=0)
    unknown = clusters._replace(attributes=np.full((len(clusters.vectors), 3), np.nan, np.float32))
    bare = meeting_inputs(clusters, meetings, SCALE, CENSUS)
    assert (bare[:, FACE_INPUTS : FACE_INPUTS + ATTRIBUTE_INPUTS] == 0).all()
    assert meeting_inputs(unknown, meetings, SCALE, CENSUS).tobytes() == bare.tobytes()


def test_a_meeting_looks_the_same_in_any_company():
    clusters, meetings = draw(1)
    whole = meeting_inputs(clusters, meetings, SCALE, CENSUS)
    of_host = [np.flatnonzero(meetings.host == host) for host in (2, 3)]
    for rows in of_host:
        part = meeting_inputs(clusters, Meetings(*(column[rows] for column in meetings)), SCALE, CENSUS)
        assert part.tobytes() == whole[rows].tobytes()
    nobody = Meetings(*(column[:0] for column in meetings))
    assert meeting_inputs(clusters, nobody, SCALE, CENSUS).shape == (0, MEETING_INPUTS)


def test_a_census_counts_clusters():
    assert take_census(np.array([1, 1, 2, LARGE - 1, LARGE, 1, 40])) == (64, 7, 3, 50)
    assert take_census(np.empty(0, np.int64)) == (0, 0, 0, 0)


def test_every_meeting_knows_what_kind_of_gallery_it_is_in():
    clusters, meetings = draw(3)
    at = FACE_INPUTS + ATTRIBUTE_INPUTS + HOST_INPUTS
    inputs = meeting_inputs(clusters, meetings, SCALE, CENSUS)[:, at : at + GALLERY_INPUTS]
    expected = [np.log(300), 210 / 900, np.log(3), 400 / 900]
    assert inputs == pytest.approx(np.tile(expected, (4, 1)), abs=1e-6)
    # No gallery that was learned from has more than 10,000 clusters.
    huge = Census(faces=3_000_000, clusters=1_000_000, alone=700_000, in_large=1_000_000)
    others = meeting_inputs(clusters, meetings, SCALE, huge)[:, at]
    assert others == pytest.approx(np.log(10_000))


def test_a_meeting_knows_the_mean_norms_of_both():
    clusters, meetings = draw(4)
    at = FACE_INPUTS + ATTRIBUTE_INPUTS + HOST_INPUTS + GALLERY_INPUTS
    inputs = meeting_inputs(clusters, meetings, SCALE, CENSUS)[:, at : at + NORM_INPUTS]
    scores = standardise_norms(clusters.norms, SCALE.norms)
    ends = zip(clusters.starts[:-1], clusters.starts[1:], strict=True)
    means = np.array([scores[low:high].mean() for low, high in ends])
    assert inputs == pytest.approx(np.stack([means[meetings.visitor], means[meetings.host]], 1), abs=1e-6)
    nothing = SCALE._replace(norms=NormScale())
    assert (meeting_inputs(clusters, meetings, nothing, CENSUS)[:, at : at + NORM_INPUTS] == 0).all()


def test_hosts_are_ranked_and_visitors_too():
    clusters, meetings = draw(2)
    inputs = meeting_inputs(clusters, meetings, SCALE, CENSUS)
    at = FACE_INPUTS + ATTRIBUTE_INPUTS
    guests = np.flatnonzero(meetings.host == 3)
    order = guests[np.argsort(-inputs[guests, 4])]
    assert inputs[order, at] == pytest.approx(np.log1p([0, 1, 2]))
    assert inputs[guests, at + 1] == pytest.approx(np.log1p([3, 3, 3]))
    rank_hosts(meetings.visitor, meetings.host, inputs)
    for number, column in enumerate(RANKED):
        first = at + HOST_INPUTS + GALLERY_INPUTS + NORM_INPUTS + 2 * number
        rank, margin = inputs[:, first], inputs[:, first + 1]
        better = 0 if inputs[0, column] > inputs[1, column] else 1
        gap = abs(float(inputs[0, column]) - float(inputs[1, column]))
        assert rank[better] == 0 and rank[1 - better] == pytest.approx(np.log(2))
        assert margin[better] == pytest.approx(gap, abs=1e-6)
        assert margin[1 - better] == pytest.approx(-gap, abs=1e-6)
        assert rank[2:].tolist() == [0, 0] and margin[2:] == pytest.approx([0.3, 0.3], abs=1e-6)
