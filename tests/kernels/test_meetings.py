"""What a meeting of clusters looks like, against plain loops over all pairs of their images."""

import numpy as np
import pytest

from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.meetings import (
    FACE_INPUTS,
    GALLERY_INPUTS,
    HOST_INPUTS,
    LARGE,
    MEETING_INPUTS,
    QUALITY_INPUTS,
    RANKED,
    Census,
    Clusters,
    Meetings,
    meeting_inputs,
    rank_hosts,
    take_census,
)
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.norms import NormScale
from faceclust_spark.kernels.readings import AttributeWeights, describe_qualities

WEIGHTS = AttributeWeights((0.5, 0.0, -0.2, 0.1, 0.0), (0.0, 0.7, 0.0, 0.0, -0.1))
SCALE = Scale(mean=0.02, standard_deviation=0.11, norms=NormScale(2.7, 0.12), attributes=WEIGHTS)
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


def test_missing_attributes_are_as_none():
    clusters, meetings = draw(0)
    bare = clusters._replace(attributes=np.empty((len(clusters.vectors), 0), np.float32))
    unknown = clusters._replace(attributes=np.full((len(clusters.vectors), 5), np.nan, np.float32))
    found = [meeting_inputs(some, meetings, SCALE, CENSUS) for some in (bare, unknown, clusters)]
    assert found[0].tobytes() == found[1].tobytes() != found[2].tobytes()


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
    at = FACE_INPUTS + HOST_INPUTS
    inputs = meeting_inputs(clusters, meetings, SCALE, CENSUS)[:, at : at + GALLERY_INPUTS]
    expected = [np.log(300), 210 / 900, np.log(3), 400 / 900]
    assert inputs == pytest.approx(np.tile(expected, (4, 1)), abs=1e-6)
    # No gallery that was learned from has more than 10,000 clusters.
    huge = Census(faces=3_000_000, clusters=1_000_000, alone=700_000, in_large=1_000_000)
    others = meeting_inputs(clusters, meetings, SCALE, huge)[:, at]
    assert others == pytest.approx(np.log(10_000))


def test_a_meeting_knows_the_mean_qualities_of_both():
    clusters, meetings = draw(4)
    at = FACE_INPUTS + HOST_INPUTS + GALLERY_INPUTS
    inputs = meeting_inputs(clusters, meetings, SCALE, CENSUS)[:, at : at + QUALITY_INPUTS]
    scores = describe_qualities(clusters.norms, clusters.attributes, SCALE.norms, WEIGHTS)
    ends = zip(clusters.starts[:-1], clusters.starts[1:], strict=True)
    means = np.array([scores[low:high].mean(axis=0) for low, high in ends])
    expected = np.concatenate([means[meetings.visitor], means[meetings.host]], axis=1)
    assert inputs == pytest.approx(expected, abs=1e-6)
    nothing = SCALE._replace(norms=NormScale(), attributes=AttributeWeights())
    assert (meeting_inputs(clusters, meetings, nothing, CENSUS)[:, at : at + QUALITY_INPUTS] == 0).all()


def test_hosts_are_ranked_and_visitors_too():
    clusters, meetings = draw(2)
    inputs = meeting_inputs(clusters, meetings, SCALE, CENSUS)
    at = FACE_INPUTS
    guests = np.flatnonzero(meetings.host == 3)
    order = guests[np.argsort(-inputs[guests, 4])]
    assert inputs[order, at] == pytest.approx(np.log1p([0, 1, 2]))
    assert inputs[guests, at + 1] == pytest.approx(np.log1p([3, 3, 3]))
    rank_hosts(meetings.visitor, meetings.host, inputs)
    for number, column in enumerate(RANKED):
        first = at + HOST_INPUTS + GALLERY_INPUTS + QUALITY_INPUTS + 2 * number
        rank, margin = inputs[:, first], inputs[:, first + 1]
        better = 0 if inputs[0, column] > inputs[1, column] else 1
        gap = abs(float(inputs[0, column]) - float(inputs[1, column]))
        assert rank[better] == 0 and rank[1 - better] == pytest.approx(np.log(2))
        assert margin[better] == pytest.approx(gap, abs=1e-6)
        assert margin[1 - better] == pytest.approx(-gap, abs=1e-6)
        assert rank[2:].tolist() == [0, 0] and margin[2:] == pytest.approx([0.3, 0.3], abs=1e-6)
