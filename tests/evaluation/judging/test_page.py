"""The page: its questions, that nothing in it tells whose pictures are whose, and its script."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from diffjax.core.errors import ConfigError, InputError
from diffjax.evaluation.judging import page, tally
from diffjax.evaluation.judging.collection import Prompt
from diffjax.images import png
from tests.evaluation.judging import made

NODE = shutil.which("node")
VOID = {"meta", "img", "br", "link", "input"}


class Parsed(HTMLParser):
    """The elements of a page; fails where one is not closed."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.text = [], [], {}
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        key = (
            self.open[-1] if self.open else "",
            self.found[-1][1].get("id") if self.found else "",
        )
        self.text[key] = self.text.get(key, "") + data


def data_of(text):
    return json.loads(Parsed(text).text["script", "data"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(collection, folder of the page, text of the page) of three systems."""
    folder = made.pictures(tmp_path_factory.mktemp("judged"), ("apple", "pear", "plum"))
    index = page.write(folder, folder.parent / "page", seed=5)
    return folder, index.parent, index.read_text(encoding="utf-8")


def test_each_prompt_meets_each_pair_of_systems_once_in_an_order_of_the_seed():
    items = page.items_of(20, ["a", "b", "c"], 0)
    assert len(items) == 60
    assert len({(one.prompt, frozenset((one.left, one.right))) for one in items}) == 60
    assert items == page.items_of(20, ["a", "b", "c"], 0)
    assert items != page.items_of(20, ["a", "b", "c"], 1)
    assert [one.prompt for one in items] != sorted(one.prompt for one in items)
    many = page.items_of(4000, ["a", "b"], 0)
    assert np.mean([one.left == "a" for one in many]) == pytest.approx(0.5, abs=0.03)


def test_a_page_shows_each_systems_pictures_on_its_side(written):
    folder, out, text = written
    key, items = made.key_of(folder), data_of(text)["items"]
    assert len(items) == len(key["items"]) == 6
    for item, (left, right, category, prompt) in zip(items, key["items"], strict=True):
        assert (item["prompt"], category) == made.PROMPTS[prompt]
        for side, system in (("left", left), ("right", right)):
            for seed, name in enumerate(item[side]):
                own = folder / system / f"{2 * prompt + seed:04d}_seed{seed}_8px.png"
                assert (png.read(out / "pictures" / name) == png.read(own)).all()


def test_nothing_of_the_page_says_which_system_made_a_picture(written):
    _, out, text = written
    assert {path.name for path in out.iterdir()} == {"index.html", "pictures"}
    assert not re.search("apple(?! )|pear|plum", text.replace("a red apple", ""))
    names = [path.name for path in (out / "pictures").iterdir()]
    assert all(re.fullmatch(r"[0-9a-f]{32}\.png", name) for name in names)
    assert all(png.read_metadata(path) is None for path in (out / "pictures").iterdir())


def test_writing_a_page_again_changes_nothing_and_another_page_is_not_overwritten(written):
    folder, out, text = written
    page.write(folder, out, seed=5)
    assert (out / "index.html").read_text() == text
    with pytest.raises(ConfigError, match="holds another page; --overwrite replaces it"):
        page.write(folder, out, seed=6)


# With this seed the two questions have other sides than with 0.
SEED = next(s for s in range(9) if page.items_of(2, "ab", s) != page.items_of(2, "ab", 0))


def test_the_hash_changes_with_the_question_and_the_sides(tmp_path):
    folder = made.pictures(tmp_path / "judged")
    for number, changes in enumerate([{}, {"question": "Which are sharper?"}, {"seed": SEED}]):
        page.write(folder, tmp_path / f"page{number}", **changes)
    assert len(list((folder / "pages").glob("*.json"))) == 3


def test_a_damaged_picture_ends_in_one_line(tmp_path):
    folder = made.pictures(tmp_path / "judged")
    path = folder / "b" / "0002_seed0_8px.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"b/0002_seed0_8px.png: ") as error:
        page.write(folder, tmp_path / "page")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "page" / "index.html").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"systems": ["a"]}, "compares two different ones or more"),
        ({"systems": ["a", "a"]}, "compares two different ones or more"),
        ({"systems": ["a", "c"]}, "--systems = 'c': there are a, b"),
        ({"question": " "}, "1 to 200 characters"),
    ],
)
def test_a_page_that_compares_nothing_is_refused(asked, words, tmp_path):
    folder = made.pictures(tmp_path / "judged")
    with pytest.raises(ConfigError, match=words):
        page.write(folder, tmp_path / "page", **asked)


NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"\u2028 <!-- '{{data}}"


def test_no_prompt_becomes_a_part_of_the_page(tmp_path):
    folder = made.pictures(tmp_path / "judged", prompts=[Prompt(NASTY, "x")])
    text = page.write(folder, tmp_path / "page").read_text(encoding="utf-8")
    parsed = Parsed(text)
    assert [tag for tag, _ in parsed.found if tag in ("script", "img")] == ["script", "script"]
    assert data_of(text)["items"][0]["prompt"] == NASTY
    assert "innerHTML" not in text
    assert "\u2028" not in text


def test_the_page_asks_the_network_for_nothing(written):
    text = written[2]
    assert not re.search(
        r"https?:|//[a-z]|fetch\(|XMLHttp|@import|url\(", re.sub("// .*", "", text)
    )
    assert all("src" not in attrs and "href" not in attrs for _, attrs in Parsed(text).found)


def test_the_page_can_be_used_without_seeing_or_a_mouse(written):
    """Language, title, labels, a spoken status, keys; the script gives each picture a text."""
    parsed = Parsed(written[2])
    found = [(tag, attrs.get("id")) for tag, attrs in parsed.found]
    attrs = {attrs["id"]: attrs for _, attrs in parsed.found if "id" in attrs}
    assert parsed.found[0] == ("html", {"lang": "en"})
    assert parsed.text["title", None].strip()
    assert attrs["left"]["aria-label"] == "Left"
    assert attrs["told"]["role"] == "status"
    for name in ("choose-left", "choose-tie", "choose-right", "back", "save"):
        assert ("button", name) in found
        assert parsed.text["button", name].strip()
    ids = [name for _, name in found if name]
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'get\("([a-z-]+)"\)', written[2])) <= set(ids)
    assert "picture.alt =" in written[2]


def luminance(colour):
    """Of a colour such as #0b57d0 (WCAG 2.2)."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize(
    ("front", "behind"), [("text", "ground"), ("quiet", "ground"), ("label", "button")]
)
def test_text_has_the_contrast_that_wcag_wants(front, behind, written):
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", written[2]))
    light, dark = sorted((luminance(colours[name]) for name in (front, behind)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_script_keeps_answers_and_saves_what_the_tally_reads(written, tmp_path):
    text = written[2]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    mark = data_of(text)["page"]
    told = f"const page = {json.dumps(mark)};\n" + """
    const judge = "0".repeat(31) + "7";
    let answers = {};
    for (const key of ["ArrowLeft", "1", "ArrowRight", "2", "ArrowDown", "0"]) {
      answers = withAnswer(answers, firstOpen(answers, 6), sideOf(key));
    }
    const file = fileOf(page, judge, answers), back = restored(file, page, 6);
    const wrong = {0: "left", 7: "left", x: "tie", 1: "up"};
    const forged = JSON.stringify({page, judge, answers: wrong});
    console.log(JSON.stringify({
      file, open: firstOpen(answers, 6), some: firstOpen({0: "tie", 2: "left"}, 6),
      same: JSON.stringify(back) === JSON.stringify({judge, answers}),
      forged: restored(forged, page, 6).answers,
      none: [restored(null, page, 6), restored("{", page, 6), restored(file, "other", 6)],
      keys: [sideOf("x"), sideOf("toString")],
      changed: withAnswer({0: "left"}, 0, "tie"),
    }));
    """  # fmt: skip
    (tmp_path / "page.js").write_text(script + told)
    ran = subprocess.run([NODE, tmp_path / "page.js"], capture_output=True, text=True, check=True)
    said = json.loads(ran.stdout)
    (tmp_path / "answers.json").write_text(said["file"])
    found = tally.read_answers(tmp_path / "answers.json")
    assert (found.page, found.judge) == (mark, f"{7:032x}")
    sides = ["left", "left", "right", "right", "tie", "tie"]
    assert found.sides == dict(enumerate(sides))
    assert (said["open"], said["some"], said["same"]) == (6, 1, True)
    assert said["forged"] == {"0": "left"}
    assert said["none"] == [None, None, None]
    assert said["keys"] == [None, None]
    assert said["changed"] == {"0": "tie"}


# As much of a browser as the page asks for. Each start is a visit with what the last one stored.
BROWSER = """
const stored = {}, visits = [], saved = [];
globalThis.localStorage = {
  getItem: (name) => stored[name] ?? null, setItem: (name, text) => { stored[name] = text; },
};
globalThis.Blob = class { constructor(parts) { this.text = parts.join(""); } };
globalThis.URL = {createObjectURL: (blob) => { saved.push(blob.text); return "blob:"; },
                  revokeObjectURL: () => {}};
globalThis.setTimeout = () => {};
function visit(keys) {
  const found = {}, listeners = [];
  const element = () => ({
    children: [], clicks: [], textContent: "", click() { this.clicks.forEach((f) => f()); },
    addEventListener(kind, f) { this.clicks.push(f); },
    replaceChildren(...all) { this.children = all; },
  });
  globalThis.document = {
    getElementById: (id) => (found[id] ??= element()), createElement: element,
    addEventListener: (kind, f) => listeners.push(f),
  };
  document.getElementById("data").textContent = DATA;
  run();
  for (const key of keys) {
    const event = {key, preventDefault() {}};
    if (key.startsWith("choose")) found[key].click();
    else listeners.forEach((f) => f(event));
  }
  const shown = (side) => found[side].children.map((one) => [one.src, one.alt]);
  visits.push({prompt: found.prompt.textContent, told: found.told.textContent,
               left: shown("left"), right: shown("right"), off: found["choose-tie"].disabled});
}
"""


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_page_shows_questions_takes_keys_and_goes_on_at_the_next_visit(written, tmp_path):
    text = written[2]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    data = data_of(text)
    visits = [[], ["1", "ArrowRight", "Backspace", "0"], ["choose-left", "x", "2", "2", "2", "s"]]
    code = f"const DATA = {json.dumps(json.dumps(data))};\n{script}\n{BROWSER}"
    code += f"for (const keys of {json.dumps(visits)}) visit(keys);\n"
    code += "console.log(JSON.stringify([visits, saved]));\n"
    (tmp_path / "page.js").write_text(code)
    ran = subprocess.run([NODE, tmp_path / "page.js"], capture_output=True, text=True, check=True)
    (first, second, last), (file,) = json.loads(ran.stdout)
    for visit, at in ((first, 0), (second, 2)):
        assert visit["prompt"] == data["items"][at]["prompt"]
        for side in ("left", "right"):
            files = [f"pictures/{name}" for name in data["items"][at][side]]
            alts = [f"{side.title()}, picture {i} of 2" for i in (1, 2)]
            assert visit[side] == [list(pair) for pair in zip(files, alts, strict=True)]
    assert (first["told"], second["told"]) == (
        "Question 1 of 6. 0 answered.", "Question 3 of 6. 2 answered.",
    )  # fmt: skip
    assert (last["off"], last["left"], last["told"]) == (True, [], "6 answered.")
    sides = ["left", "tie", "left", "right", "right", "right"]
    assert json.loads(file)["answers"] == {str(at): side for at, side in enumerate(sides)}
