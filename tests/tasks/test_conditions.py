import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.diffusion.process import alpha_sigma
from diffjax.images import pixels
from diffjax.tasks.conditions import Class, Embedding, LowRes, Masked, Text, Tokens, shrink
from diffjax.tasks.pictures import near_line
from diffjax.tasks.settings import SampleSettings
from tests.diffusion.helpers import images

KEY = jax.random.key(0)
KEYS = rng.per_example(jnp.arange(4))
SETTINGS = SampleSettings(aug_level=0.2)
LOW_RES = LowRes(8, 4)


def test_the_shrunk_target_is_antialiased_and_does_not_reveal_the_target():
    target = images(0, (2, 32, 32, 3))
    low_res = shrink(target, 4)
    assert low_res.shape == (2, 8, 8, 3)
    given = LOW_RES.with_noise(low_res, jnp.zeros(2), KEY)["low_res"]
    assert given.shape == target.shape
    # white noise has no low frequencies to speak of: the condition must not know the target
    assert float(jnp.sqrt(jnp.mean((given - target) ** 2))) > 0.8


def test_the_condition_has_the_band_limit_of_the_stage_before():
    """Shrunk again, the condition is the small picture; its own detail holds no more."""
    smooth = pixels.resize(images(0, (2, 2, 2, 3)), 32, 32)
    given = LOW_RES.with_noise(shrink(smooth, 4), jnp.zeros(2), KEY)["low_res"]
    np.testing.assert_allclose(given[:, 8:-8, 8:-8], smooth[:, 8:-8, 8:-8], atol=0.12)
    spectrum = np.abs(np.fft.fft2(np.asarray(given)[0, :, :, 0]))
    assert spectrum[12:20, 12:20].max() < 0.02 * spectrum.max()


def test_the_noise_is_that_of_the_level_told_and_is_drawn_once():
    """Enlarging is linear: the noise of a black picture grows with sigma and nothing else."""
    low_res = jnp.zeros((64, 8, 8, 3))
    enlarged, sigmas = [], []
    for level in (0.1, 0.5, 1.0):
        told = LOW_RES.with_noise(low_res, jnp.full((64,), level), KEY)
        enlarged.append(float(told["low_res"].std()))
        sigmas.append(float(alpha_sigma(told["aug_logsnr"])[1].ravel()[0]))
    np.testing.assert_allclose(np.divide(enlarged, enlarged[-1]), sigmas, rtol=1e-4)
    noise = pixels.resize(images(7, (64, 8, 8, 3)), 32, 32)
    assert enlarged[-1] == pytest.approx(float(noise.std()), rel=0.02)


def test_training_and_sampling_noise_the_small_picture_alike():
    """One key per image (sampling) or one for all (training): the same distribution."""
    low_res, level = jnp.full((256, 8, 8, 3), 0.3), jnp.full((256,), 0.3)
    one = LOW_RES.with_noise(low_res, level, KEY)["low_res"]
    other = LOW_RES.with_noise(low_res, level, rng.per_example(jnp.arange(256)))["low_res"]
    assert float(one.mean()) == pytest.approx(float(other.mean()), abs=0.01)
    assert float(one.std()) == pytest.approx(float(other.std()), rel=0.02)


def test_the_level_and_the_noise_of_the_small_picture_have_keys_of_their_own():
    """One key for both would tie how much noise there is to what the noise is."""
    batch = {"image": jnp.zeros((4, 32, 32, 3))}
    drawn = LOW_RES.draw(KEY, batch)
    np.testing.assert_array_equal(
        drawn["aug_level"], jax.random.uniform(rng.stream(KEY, "aug_level"), (4,))
    )
    expected = jax.random.split(rng.stream(KEY, "aug_noise"), 4)
    assert (jax.random.key_data(drawn["aug_key"]) == jax.random.key_data(expected)).all()


def test_training_noises_to_no_more_than_the_largest_level():
    batch = {"image": jnp.zeros((1000, 32, 32, 3))}
    levels = LowRes(8, 4, max_level=0.3).draw(KEY, batch)["aug_level"]
    assert float(levels.max()) == pytest.approx(0.3, abs=0.003)
    assert float(levels.min()) >= 0.0


def test_the_augmentation_follows_its_own_schedule():
    from diffjax.diffusion.schedule import cosine, linear

    low_res, level = jnp.zeros((4, 8, 8, 3)), jnp.full((4,), 0.4)
    for schedule in (cosine(), linear()):
        told = LowRes(8, 4, schedule).with_noise(low_res, level, KEY)
        np.testing.assert_allclose(told["aug_logsnr"], schedule(level), rtol=1e-6)


def text_columns():
    text = images(1, (4, 6, 4, 1))[..., 0]
    mask = jnp.arange(6)[None, :] < jnp.array([3, 6, 2, 5])[:, None]
    return {"text": text, "text_mask": mask}


def test_no_text_says_nothing_of_the_prompt_and_a_negative_prompt_keeps_its_own_mask():
    condition, columns = Text(4, 6), text_columns()
    given = condition.given(columns, KEYS, SETTINGS)
    nothing = condition.absent(given, columns)
    assert float(jnp.abs(nothing["text"]).max()) == 0.0
    np.testing.assert_array_equal(nothing["text_mask"], [[True] + [False] * 5] * 4)
    other = {
        "negative_text": columns["text"][::-1],
        "negative_text_mask": columns["text_mask"][::-1],
    }
    negative = condition.absent(given, {**columns, **other})
    np.testing.assert_array_equal(negative["text"], columns["text"][::-1])
    np.testing.assert_array_equal(negative["text_mask"], columns["text_mask"][::-1])


CONDITIONS = [
    (Text(4, 6, drop=0.5), "keep_text"),
    (Tokens(6, drop=0.5), "keep_tokens"),
    (Class(10, drop=0.5), "keep_label"),
    (Embedding("clip_image", 8, drop=0.5), "keep_clip_image"),
]


@pytest.mark.parametrize(("condition", "name"), CONDITIONS, ids=lambda x: str(x)[:12])
def test_a_share_of_the_rows_trains_as_guidance_will_ask(condition, name):
    """What a dropped row is told in training is what `absent` says when sampling."""
    rows = 400
    columns = {
        name: jnp.ones((rows, *shape.shape), shape.dtype)
        for name, shape in condition.columns().items()
    }
    drawn = condition.draw(KEY, columns)
    assert float(drawn[name].mean()) == pytest.approx(0.5, abs=0.1)
    told = condition.told({**columns, **drawn})
    prompts = {
        name: jnp.ones((rows, *shape.shape), shape.dtype)
        for name, shape in condition.prompts().items()
    }
    given = condition.given(prompts, rng.per_example(jnp.arange(rows)), SETTINGS)
    absent = condition.absent(given, prompts)
    assert told.keys() == given.keys() == absent.keys()
    keep = np.asarray(drawn[name])
    for key in told:
        np.testing.assert_array_equal(np.asarray(told[key])[~keep], np.asarray(absent[key])[~keep])
        if key != "text_mask":  # of a caption of one token both show the first place alone
            assert (np.asarray(told[key])[keep] != np.asarray(absent[key])[keep]).any()


def test_a_negative_label_or_vector_takes_the_place_of_nothing():
    label = Class(10)
    columns = {"label": jnp.array([1, 2]), "negative_label": jnp.array([7, 8])}
    given = label.given(columns, KEYS[:2], SETTINGS)
    np.testing.assert_array_equal(label.absent(given, columns)["label"], [7, 8])
    np.testing.assert_array_equal(label.absent(given, {})["label"], [10, 10])
    vector = Embedding("clip", 3)
    columns = {"clip": jnp.ones((2, 3)), "negative_clip": jnp.full((2, 3), 5.0)}
    given = vector.given(columns, KEYS[:2], SETTINGS)
    np.testing.assert_array_equal(vector.absent(given, columns)["vector"], columns["negative_clip"])
    np.testing.assert_array_equal(vector.absent(given, {})["vector"], jnp.zeros((2, 3)))


def test_the_masked_picture_is_black_in_the_hole_and_nothing_of_the_hole_shows():
    condition = Masked(8, drop=0.25)
    image = images(0, (64, 8, 8, 3))
    drawn = condition.draw(KEY, {"image": image})
    told = condition.told({"image": image, **drawn})
    hole = np.asarray(told["mask"]) == 1.0
    assert set(np.unique(told["mask"])) <= {0.0, 1.0}
    np.testing.assert_array_equal(told["masked"], np.where(hole, 0.0, np.asarray(image)))
    whole = hole.all(axis=(1, 2, 3)).mean()
    assert 0.1 < whole < 0.5
    given = condition.given({"picture": image, "hole": jnp.array(hole)}, KEYS, SETTINGS)
    np.testing.assert_array_equal(given["masked"], told["masked"])
    np.testing.assert_array_equal(given["mask"], told["mask"])


ALL = [Text(4, 6), Tokens(6), Class(10), Embedding("clip_image", 8), Masked(8), LowRes(8, 4)]


def ones(shapes, rows):
    """Columns of these shapes, all 1."""
    return {name: jnp.ones((rows, *one.shape), one.dtype) for name, one in shapes.items()}


@pytest.mark.parametrize("condition", ALL, ids=lambda one: type(one).__name__)
def test_a_preview_shows_and_nothing_fills_the_columns_that_sampling_reads(condition):
    wanted = {name: ((2, *one.shape), one.dtype) for name, one in condition.prompts().items()}
    side_px = 8 if isinstance(condition, Masked) else 32
    batch = {**ones(condition.columns(), 2), "image": jnp.ones((2, side_px, side_px, 3))}
    for made in (condition.shown(batch), condition.nothing(2)):
        found = {name: (column.shape, column.dtype) for name, column in made.items()}
        assert found == wanted or (isinstance(condition, LowRes) and not found)


@pytest.mark.parametrize("condition", ALL[:4], ids=lambda one: type(one).__name__)
def test_nothing_is_what_guidance_leads_away_from(condition):
    given = condition.given(ones(condition.prompts(), 2), KEYS[:2], SETTINGS)
    absent = condition.absent(given, {})
    for name, column in condition.given(condition.nothing(2), KEYS[:2], SETTINGS).items():
        np.testing.assert_array_equal(column, absent[name])


def test_the_hole_of_a_preview_is_the_middle_and_nothing_is_all_hole():
    shown = Masked(8).shown({"image": images(0, (1, 8, 8, 3))})
    want = np.zeros((8, 8), bool)
    want[2:6, 2:6] = True
    np.testing.assert_array_equal(shown["hole"][0, :, :, 0], want)
    assert bool(Masked(8).nothing(1)["hole"].all())


def test_a_small_picture_that_is_never_noised_is_the_mean_of_blocks_and_is_enlarged_linearly():
    """ADM's upsamplers; training and sampling give the network the same."""
    condition = LowRes(2, 2, max_level=0.0, noised=False)
    image = images(0, (1, 4, 4, 3))
    small = np.asarray(image).reshape(1, 2, 2, 2, 2, 3).mean((2, 4))
    told = condition.told({"image": image})
    assert set(told) == {"low_res"}
    given = condition.given({"low_res": jnp.asarray(small)}, rng.per_example(jnp.zeros(1, int)),
                            SampleSettings())  # fmt: skip
    np.testing.assert_allclose(told["low_res"], given["low_res"], atol=1e-6)
    # half pixels: each new pixel lies a quarter of a pixel from the nearest old one
    weights = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    wanted = np.einsum("ih,bhwc,jw->bijc", weights, small, weights)
    np.testing.assert_allclose(told["low_res"], wanted, atol=1e-5)
    assert condition.absent(given, {}) == given
    assert condition.draw(jax.random.key(0), {"image": image}) == {}


def test_the_small_picture_is_degraded_in_training_alone():
    """By keys that are drawn; guidance and sampling see the picture as it is."""
    plain = LowRes(8, 4, max_level=0.0, noised=False)
    spoiled = LowRes(8, 4, max_level=0.0, noised=False, degrade="bsr")
    batch = {"image": images(3, (16, 32, 32, 3))}
    drawn = spoiled.draw(KEY, batch)
    assert set(drawn) == {"degrade_key"}
    assert not plain.draw(KEY, batch)
    told = spoiled.told({**batch, **drawn})["low_res"]
    clean = plain.told(batch)["low_res"]
    moved = np.abs(np.asarray(told - clean)).max(axis=(1, 2, 3)) > 1e-4
    assert 8 <= moved.sum() <= 16
    given = spoiled.given({"low_res": batch["image"][:4, :8, :8]}, KEYS, SETTINGS)
    np.testing.assert_array_equal(
        given["low_res"],
        plain.given({"low_res": batch["image"][:4, :8, :8]}, KEYS, SETTINGS)["low_res"],
    )


def test_holes_are_rectangles_thick_lines_or_everything_in_their_shares():
    image = images(0, (400, 8, 8, 3))
    plain, lines = Masked(8, drop=0.25), Masked(8, drop=0.25, strokes=0.5)
    drawn = lines.draw(KEY, {"image": image})
    whole = np.asarray(lines.told({**drawn, "image": image})["mask"]).reshape(400, -1).all(1)
    assert whole.mean() == pytest.approx(0.25, abs=0.1)
    assert drawn["hole_drawn"].mean() == pytest.approx(0.375, abs=0.1)
    # the draws of rectangles do not depend on whether there are lines
    same = plain.draw(KEY, {"image": image})
    np.testing.assert_array_equal(same["hole_box"], drawn["hole_box"])
    straight = ~np.asarray(drawn["hole_drawn"])
    for name in ("masked", "mask"):
        boxes, found = (
            np.asarray(one.told({**draws, "image": image})[name])[straight]
            for one, draws in ((plain, same), (lines, drawn))
        )
        np.testing.assert_array_equal(boxes, found)


def test_a_line_is_all_pixels_near_one_of_its_parts():
    points = np.random.default_rng(0).uniform(size=(2, 4, 2)).astype(np.float32)
    distance = np.array([0.1, 0.2], np.float32)
    found = near_line(jnp.asarray(points), jnp.asarray(distance), 6, 9)
    places = np.linspace(0, 1, 2001)[:, None]
    for row in range(2):
        ends = zip(points[row, :-1], points[row, 1:], strict=True)
        line = np.concatenate([(1 - places) * a + places * b for a, b in ends])
        for y in range(6):
            for x in range(9):
                pixel = np.array([(y + 0.5) / 6, (x + 0.5) / 9])
                nearest = np.linalg.norm(line - pixel, axis=1).min()
                if abs(nearest - distance[row]) > 1e-3:
                    assert found[row, y, x] == (nearest < distance[row])


def test_a_network_may_be_told_what_is_known_in_place_of_the_hole():
    columns = {"picture": jnp.ones((1, 4, 4, 3)), "hole": jnp.eye(4, dtype=bool)[None, ..., None]}
    one, other = (
        Masked(4, known=known).given(columns, KEYS[:1], SETTINGS) for known in (False, True)
    )
    np.testing.assert_array_equal(one["mask"], 1.0 - other["mask"])
    np.testing.assert_array_equal(one["masked"], other["masked"])
    np.testing.assert_array_equal(other["mask"][0, ..., 0], 1.0 - np.eye(4))
