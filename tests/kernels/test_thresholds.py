import numpy as np
import pytest
from scipy.stats import norm

from faceclust_spark.config import CoarseGroupsConfig, NeighboursConfig, load_config
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.norms import NormScale, norm_scale
from faceclust_spark.kernels.readings import AttributeWeights, weigh_attributes
from faceclust_spark.kernels.thresholds import (
    HIGHEST,
    LOWEST_FLOOR,
    LOWEST_ROOT,
    RandomPairs,
    choose_thresholds,
    random_pairs,
)


def random_faces(count=600, width=128, seed=0, off_centre=0.0):
    generator = np.random.default_rng(seed)
    centre = off_centre * normalise(generator.normal(size=(1, width)))
    return quantise(normalise(normalise(generator.normal(size=(count, width))) + centre))


def choose(sample, faces=10_000, floor="auto", **groups):
    return choose_thresholds(sample, faces, NeighboursConfig(floor=floor), CoarseGroupsConfig(**groups))


@pytest.mark.parametrize("width", [64, 256])
@pytest.mark.parametrize("off_centre", [0.0, 0.5])
def test_centre_and_spread_are_those_of_random_pairs(width, off_centre):
    sample = random_faces(width=width, off_centre=off_centre)
    cosines = cosine_matrix(sample, sample)[np.triu_indices(len(sample), 1)]
    centre, spread, same, _ = random_pairs(sample)
    assert centre == pytest.approx(cosines.mean(), abs=0.003)
    assert spread == pytest.approx(cosines.std(), rel=0.03)
    assert same == 0


def test_pairs_of_the_same_person_hardly_count():
    sample = random_faces()
    people = sample.copy()
    people[:400] = people[np.arange(400) // 8 * 8]  # 50 persons of 8 equal faces: 0.8 % of all pairs
    assert random_pairs(people).spread == pytest.approx(random_pairs(sample).spread, rel=0.06)
    every = cosine_matrix(people, people)[np.triu_indices(len(people), 1)]
    assert every.std() > 1.2 * random_pairs(people).spread  # what an ordinary deviation would say


def album(share, off_centre=0.0, count=600):
    """Give faces of which a share is of one person, with cosines of about 0.6 to each other."""
    faces = random_faces(count, off_centre=off_centre)
    person = (
        normalise(faces[:1]) + random_faces(round(share * count), seed=1) / np.linalg.norm(faces[0]) * 0.8
    )
    return np.concatenate([quantise(normalise(person)), faces[round(share * count) :]])


@pytest.mark.parametrize("off_centre", [0.0, 0.5])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_the_pairs_of_one_person_with_much_of_the_gallery_do_not_count(share, off_centre):
    faces = album(share, off_centre)
    of_person = np.arange(len(faces)) < round(share * len(faces))
    rows, columns = np.triu_indices(len(faces), 1)
    strangers = cosine_matrix(faces, faces)[rows, columns][~(of_person[rows] & of_person[columns])]
    centre, spread, same, _ = random_pairs(faces)
    mean, deviation = float(strangers.mean()), float(strangers.std())
    for steps in (0, 3, 5):  # where thresholds lie
        assert centre + steps * spread == pytest.approx(mean + steps * deviation, abs=0.8 * deviation)
    assert same == pytest.approx(share**2, abs=0.08)


def test_norms_are_described_beside_the_cosines():
    faces = random_faces(400)
    norms = np.exp(np.random.default_rng(1).normal(2.5, 0.2, size=400)).astype(np.float32)
    args = (faces, 400, NeighboursConfig(), CoarseGroupsConfig())
    told = choose_thresholds(*args, norms)
    assert told.norms == norm_scale(norms) and told.norms.spread == pytest.approx(0.2, rel=0.2)
    assert choose_thresholds(*args) == told._replace(norms=NormScale())


def test_attributes_are_weighed_beside_the_cosines():
    faces, generator = random_faces(400), np.random.default_rng(1)
    failed = generator.exponential(size=400)
    norms = np.exp(2.5 - 0.2 * failed).astype(np.float32)
    attributes = np.column_stack([-failed, generator.normal(size=400)]).astype(np.float32)
    args = (faces, 400, NeighboursConfig(), CoarseGroupsConfig(), norms)
    told = choose_thresholds(*args, attributes)
    sure = told.mean + 5 * told.standard_deviation
    assert told.attributes == weigh_attributes(faces, attributes, norms, told.norms, sure)
    assert told.attributes.failure[0] > 0.9
    assert choose_thresholds(*args) == told._replace(attributes=AttributeWeights())


def test_what_is_left_out_is_told():
    faces = album(0.5)
    told = f"above random pairs, {random_pairs(faces).same:.0%} of the pairs taken for one person's"
    assert choose(faces).groups_chosen_by.endswith(told) and random_pairs(faces).same > 0.1


def test_one_person_alone_is_described_as_it_is():
    faces = album(1.0)
    cosines = cosine_matrix(faces, faces)[np.triu_indices(len(faces), 1)]
    found = random_pairs(faces)
    assert found.centre == found.of_all == pytest.approx(np.median(cosines), abs=1e-3)
    assert found.spread == pytest.approx(float(cosines.std()), rel=0.1) and found.same == 0


def test_centre_and_spread_do_not_depend_on_the_order():
    sample = random_faces(count=200)
    assert random_pairs(sample[::-1]) == random_pairs(sample)


@pytest.mark.parametrize("count", [0, 1, 2, 19])
def test_tiny_galleries_are_measured_by_a_typical_model(count):
    assert random_pairs(random_faces(count=max(count, 1))[:count]) == RandomPairs(0.0, 0.1)
    chosen = choose(random_faces(count=20)[:count], faces=count)
    assert chosen.floor == pytest.approx(0.1 * LOWEST_FLOOR, abs=1e-6)
    assert chosen.groups == pytest.approx([0.1 * (LOWEST_ROOT + step) for step in (0, 1.1, 2.2)])


def test_equal_faces_leave_a_spread_above_zero():
    centre, spread, *_ = random_pairs(np.repeat(random_faces(count=1), 60, axis=0))
    assert centre == pytest.approx(1, abs=1e-3)
    assert spread == 1e-3
    chosen = choose(np.repeat(random_faces(count=1), 30, axis=0))
    assert chosen.groups == (float(np.float32(HIGHEST)),)  # three that fell together
    assert chosen.floor <= chosen.groups[0]


def test_one_person_alone_raises_a_doubt_until_it_is_said_how_different_people_are():
    faces = album(1.0)
    assert "cosine of 0.61" in choose(faces).doubt
    chosen = choose(faces, random_pairs=(0.0, 0.1))
    assert (chosen.mean, chosen.standard_deviation, chosen.doubt) == (0.0, 0.1, None)
    assert chosen.groups_chosen_by.endswith("above random pairs as given")
    assert choose(album(0.9)).doubt is None
    assert choose(random_faces()).doubt is None


@pytest.mark.parametrize("people", [2, 3, 4])
@pytest.mark.parametrize("each", [10, 12, 15])
def test_few_people_of_few_images_lie_above_their_thresholds(people, each):
    """Half of all pairs of two people are of one person: they made the thresholds .5 to .9."""
    of_person = np.repeat(np.arange(people), each)
    rows, columns = np.triu_indices(len(of_person), 1)
    same = of_person[rows] == of_person[columns]
    for seed in range(10):
        noise = normalise(np.random.default_rng(seed).normal(size=(len(of_person), 128)))
        persons = normalise(random_faces(people, seed=seed + 100))[of_person]
        faces = quantise(normalise(persons + 0.8 * noise))  # cosines of about .6 within a person
        cosines = cosine_matrix(faces, faces)[rows, columns]
        lowest, *_ = choose(faces, faces=len(faces)).groups
        assert (cosines[same] > lowest).mean() > 0.9
        assert (cosines[~same] > lowest).mean() < 0.1


def test_fewer_faces_than_sixty_draw_the_spread_to_a_typical_one():
    wide = random_faces(60, width=32)
    cosines = cosine_matrix(wide, wide)[np.triu_indices(60, 1)]
    assert random_pairs(wide).spread == pytest.approx(cosines.std(), rel=0.1)  # .18
    spreads = [
        np.mean([random_pairs(random_faces(n, 32, seed)).spread for seed in range(30)])
        for n in (20, 30, 45, 60)
    ]
    assert 0.1 < spreads[0] < spreads[1] < spreads[2] < spreads[3]
    assert spreads[0] == pytest.approx(0.1 * (spreads[3] / 0.1) ** (1 / 3), rel=0.05)


@pytest.mark.parametrize("count", [21, 24, 30, 40])
def test_few_strangers_are_not_taken_for_one_person(count):
    assert not any(random_pairs(random_faces(count, seed=seed)).same for seed in range(20))


@pytest.mark.parametrize("within", [0.15, 0.2, 0.3])
@pytest.mark.parametrize("first", [0.5, 0.7, 0.9])
def test_two_kinds_of_images_are_not_taken_for_one_person(within, first):
    """Cosines of about `within` between images of one kind, such as with and without masks, and 0 across."""
    count, offset = 600, (within / (1 - within)) ** 0.5
    kinds = offset * normalise(np.random.default_rng(5).normal(size=(2, 128)))
    faces = normalise(random_faces(count)) + kinds[(np.arange(count) >= first * count).astype(int)]
    assert random_pairs(quantise(normalise(faces))).same < 0.1  # and not the .5 and more of pairs of one kind


@pytest.mark.parametrize("wrong", [(0.1,), (0.1, 0.0), (2.0, 0.1), (0.1, 0.1, 0.1), "often"])
def test_what_random_pairs_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"coarse_groups\.random_pairs"):
        load_config(values={"coarse_groups": {"random_pairs": wrong}})


@pytest.mark.parametrize("faces", [10_000, 10**6, 10**8])
def test_auto_counts_chance_links(faces):
    chosen = choose(random_faces(), faces, random_links=1.5)
    for value, links, least in (
        (chosen.groups[0], 1.5, LOWEST_ROOT),
        (chosen.floor, 40, LOWEST_FLOOR),
    ):
        z = (value - chosen.mean) / chosen.standard_deviation
        assert z == pytest.approx(max(norm.isf(links / faces), least), abs=1e-4)
    steps = np.diff(chosen.groups) / chosen.standard_deviation
    assert steps == pytest.approx([1.1, 1.1], abs=1e-4)


def test_thresholds_rise_with_the_gallery_and_floors_never_pass_them():
    sample = random_faces()
    lowest = [choose(sample, faces).groups[0] for faces in (10, 10**4, 10**5, 10**7, 10**9)]
    assert lowest == sorted(lowest)
    assert lowest[1] < lowest[2] < lowest[3] < lowest[4]
    for faces in (1, 10, 10**4, 10**9):
        chosen = choose(sample, faces)
        assert chosen.floor <= chosen.groups[0]


def test_thresholds_follow_scale_and_shift_of_the_embedding_space():
    narrow, wide = choose(random_faces(width=512)), choose(random_faces(width=64))
    for one, other in zip(narrow.groups, wide.groups, strict=True):
        assert other / one == pytest.approx(8**0.5, rel=0.06)  # spread is 1 / sqrt(width)
    shifted = choose(random_faces(width=512, off_centre=0.5))
    assert shifted.mean == pytest.approx(0.2, abs=0.01)
    assert [t - shifted.mean for t in shifted.groups] == pytest.approx(
        [t * shifted.standard_deviation / narrow.standard_deviation for t in narrow.groups], abs=0.01
    )


@pytest.mark.parametrize("given", [(0.35,), (0.5, 0.3, 0.4), (-1.0, 0.0), (0.96, 0.97, 0.999, 1.0)])
def test_given_thresholds_are_taken_as_they_are(given):
    chosen = choose(random_faces(), thresholds=given)
    assert chosen.groups == tuple(float(np.float32(t)) for t in sorted(given))
    assert chosen.groups_chosen_by == "given"
    assert chosen.floor <= chosen.groups[0]


def test_given_thresholds_that_are_one_float_are_one():
    assert choose(random_faces(), thresholds=(0.5, 0.5 + 1e-10)).groups == (0.5,)


@pytest.mark.parametrize("floor", [-1.0, 0.2, 0.97])
def test_a_given_floor_is_taken_as_it_is(floor):
    chosen = choose(random_faces(), floor=floor, thresholds=(0.99,))
    assert chosen.floor == float(np.float32(floor))
    assert chosen.floor_chosen_by == "given"


@pytest.mark.parametrize("thresholds", [(0.3, 0.5), "auto"])
def test_a_floor_above_the_lowest_threshold_is_refused(thresholds):
    with pytest.raises(ConfigError, match=r"floor 0\.6 lies above the lowest") as error:
        choose(random_faces(), floor=0.6, thresholds=thresholds)
    assert "lower the floor or raise the threshold" in str(error.value)


def test_a_floor_at_the_lowest_threshold_is_allowed():
    assert choose(random_faces(), floor=0.3, thresholds=(0.3,)).floor == float(np.float32(0.3))


def test_what_was_chosen_is_told():
    chosen = choose(random_faces())
    assert chosen.groups_chosen_by.startswith("auto: 1.5 chance links")
    assert chosen.floor_chosen_by.startswith("auto: 40 chance links")
