"""Makes the phrases that t5-nano learns from: emoji captions, made-up scenes and WordNet's English.

`write(out, wordnet)` makes train.txt, captions.txt (those of the embedded data set), words.txt
(common words) and heldout.txt. A line is a kind, a tab and a phrase; every run writes the same.
WordNet is Debian's `wordnet-base`, unpacked: `apt-get download wordnet-base && dpkg -x *.deb DIR`,
then `wordnet` is DIR/usr/share/wordnet.
"""

# ruff: noqa: SIM905 (words read better as words)
import collections
import random
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import emoji

from diffjax.data.emoji.phrases import captions

COLOURS = (
    "red blue green yellow orange purple pink brown black white grey golden silver turquoise "
    "dark-blue light-blue dark-green light-green beige maroon violet cyan magenta teal"
).split()
SIZES = "big small tiny huge little large tall short round long thin fat giant miniature".split()
MOODS = "happy sad sleepy angry old young cute funny wild lazy brave lonely smiling wet".split()
STYLES = (
    "a photo of {}|a drawing of {}|a painting of {}|a picture of {}|a sketch of {}|an icon of {}|"
    "a cartoon of {}|an illustration of {}|a 3d render of {}|an oil painting of {}|"
    "a watercolor of {}|a pixel art of {}|{} on a white background|{} in the style of van gogh|"
    "a logo of {}|a close-up of {}|a sticker of {}|{}, digital art|{}"
).split("|")
ANIMALS = (
    "cat dog horse cow pig sheep goat chicken duck goose swan bird owl eagle parrot penguin fish "
    "shark whale dolphin octopus crab turtle frog snake lizard crocodile dinosaur dragon unicorn "
    "mouse rat hamster rabbit fox wolf bear panda koala lion tiger leopard elephant giraffe zebra "
    "monkey gorilla camel kangaroo deer hedgehog squirrel bat bee butterfly ant spider snail worm"
).split()
PEOPLE = (
    "man|woman|boy|girl|baby|child|old man|old woman|doctor|nurse|farmer|cook|teacher|student|"
    "firefighter|police officer|astronaut|pilot|artist|singer|scientist|mechanic|king|queen|"
    "prince|princess|wizard|witch|fairy|vampire|zombie|robot|clown|ninja|pirate|knight|ghost"
).split("|")
THINGS = (
    "apple banana pear peach cherry strawberry lemon orange grape melon carrot potato tomato bread "
    "cheese pizza hamburger cake cookie egg cup bottle glass spoon knife fork plate bowl chair "
    "table bed lamp clock book pen pencil phone computer camera television radio car bus truck "
    "train bicycle boat ship airplane rocket balloon kite ball drum guitar piano violin hat shirt "
    "shoe sock dress coat umbrella bag key lock hammer saw candle flower tree leaf mushroom cactus "
    "mountain river island house castle church tower bridge tent door window star moon sun cloud "
    "heart crown ring gift flag arrow button triangle circle square cube box rose tulip"
).split()
DOING = (
    "sitting standing running jumping sleeping eating dancing swimming flying singing reading "
    "walking laughing crying cooking painting playing waving hiding climbing driving riding"
).split()
WHERE = "on in under next to behind in front of near above".replace("next to", "next_to")
PREPOSITIONS = [p.replace("_", " ") for p in WHERE.replace("in front of", "in_front_of").split()]
PLACES = (
    "forest desert city garden kitchen beach park field snow rain space sea sky street room cave"
).split()
NUMBERS = "two three four five six seven eight nine ten many several a_few".split()
EMOJI_TEMPLATES = (
    "{name}|{name}|{a}|{a}|{name} emoji|an emoji of {a}|a drawing of {a}|an icon of {a}|"
    "an openmoji drawing of {a}|a twemoji drawing of {a}|{a}, openmoji style|{a}, twemoji style|"
    "{name}, openmoji|{name}, twemoji|a flat icon of {a} on a white background|a picture of {a}"
).split("|")
MAX_BYTES = 95
MIN_COUNT = 10


def write(out: Path, wordnet: Path) -> None:
    """Writes the four files. Held-out phrases, in upper or lower case, are not in train.txt."""
    held: dict[str, str] = {}
    train: dict[str, str] = {}
    for kind, phrase, is_held in _everything(wordnet, random.Random(0)):
        phrase = " ".join(phrase.split())
        if 1 < len(phrase.encode()) <= MAX_BYTES:
            (held if is_held else train).setdefault(phrase.lower(), f"{kind}\t{phrase}")
    chosen = _sample(sorted(set(held) - set(train)), held)
    lines = [train[key] for key in sorted(set(train) - set(held))]
    random.Random(1).shuffle(lines)
    out.mkdir(parents=True, exist_ok=True)
    (out / "train.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shown = [f"caption\t{caption}" for caption in sorted(set(_captions(random.Random(3))))]
    (out / "captions.txt").write_text("\n".join(shown) + "\n", encoding="utf-8")
    alone = [f"word\t{w}" for w in common_words(lines) if w not in held and w not in train]
    (out / "words.txt").write_text("\n".join(alone) + "\n", encoding="utf-8")
    (out / "heldout.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")


def words_of(line: str) -> set[str]:
    """The words of a phrase, or of a line of the corpus."""
    return set(re.findall(r"[^\W\d_]+", line.split("\t")[-1].lower()))


def common_words(lines: list[str]) -> dict[str, int]:
    """The words in `MIN_COUNT` lines or more, with their numbers of lines, sorted."""
    counts = collections.Counter(word for line in lines for word in words_of(line))
    return {word: counts[word] for word in sorted(counts) if counts[word] >= MIN_COUNT}


def _sample(keys: list[str], held: dict[str, str]) -> list[str]:
    """150 emoji names, 450 glosses, 200 example sentences and 200 words: 1000 lines."""
    counts = {"emoji": 150, "gloss": 450, "example": 200, "lemma": 200}
    rng = random.Random(2)
    lines = []
    for kind, count in counts.items():
        of_kind = [held[key] for key in keys if held[key].startswith(kind + "\t")]
        lines += rng.sample(of_kind, min(count, len(of_kind)))
    return lines


def _everything(wordnet: Path, rng: random.Random) -> Iterator[tuple[str, str, bool]]:
    yield from _emoji(rng)
    for phrase in _scenes(rng, 40_000):
        yield "scene", phrase, False
    yield from _wordnet(wordnet, rng)


def _held_out(text: str, percent: int) -> bool:
    return zlib.crc32(text.lower().encode()) % 100 < percent


def _article(noun: str) -> str:
    return ("an " if noun[:1].lower() in "aeiou" else "a ") + noun


def _emoji(rng: random.Random) -> Iterator[tuple[str, str, bool]]:
    """Names in templates. A name is held out with its aliases, skin tones and templates."""
    for data in emoji.EMOJI_DATA.values():
        name = data["en"].strip(":").replace("_", " ")
        base = _base(name)
        is_held = _held_out(base, 12)
        if is_held:
            yield "emoji" if name == base else "other", name, True
            continue
        toned = "skin tone" in name
        if toned:
            tone = re.sub(
                r"^(.*?) ((medium-)?(light|dark|medium) skin tone).*", r"\1 with \2", name
            )
            templates = [*rng.sample(EMOJI_TEMPLATES, 3), tone]
        else:
            templates = list(dict.fromkeys(EMOJI_TEMPLATES))
        for template in templates:
            yield "emoji", template.format(name=name, a=_article(name)), False
        for alias in [] if toned else data.get("alias", []):
            yield "emoji", alias.strip(":").replace("_", " "), False


def _captions(rng: random.Random) -> Iterator[str]:
    """The data set's own captions: all of a plain picture, and two of each skin tone."""
    for picture, data in emoji.EMOJI_DATA.items():
        key = data["en"].strip(":")
        if _held_out(_base(key.replace("_", " ")), 12):
            continue
        is_flag = "\U0001f1e6" <= picture[0] <= "\U0001f1ff" or picture.endswith("\U000e007f")
        found = [c for s in ("openmoji", "twemoji") for c in captions(key, s, is_flag=is_flag)]
        yield from rng.sample(found, 2) if "skin_tone" in key else found


def _base(name: str) -> str:
    """The name without skin tone and person: "woman singer dark skin tone" becomes "singer"."""
    base = re.sub(r"( (medium-)?(light|dark|medium))+ skin tone.*", "", name)
    return re.sub(r"^(man|woman|person) ", "", base)


def _scenes(rng: random.Random, count: int) -> Iterator[str]:
    """Colour, size, animal, object and place put together at random."""

    def noun() -> str:
        return rng.choice(rng.choice((ANIMALS, THINGS, THINGS, PEOPLE)))

    def adjectives() -> str:
        kinds = rng.choice(((), (COLOURS,), (COLOURS,), (SIZES,), (MOODS,), (SIZES, COLOURS)))
        return "".join(rng.choice(kind).replace("-", " ") + " " for kind in kinds)

    def thing() -> str:
        if rng.random() < 0.12:
            number = rng.choice(NUMBERS).replace("_", " ")
            return f"{number} {adjectives()}{noun()}s"
        return _article(adjectives() + noun())

    def being() -> str:
        return _article(adjectives() + rng.choice(rng.choice((ANIMALS, PEOPLE))))

    for _ in range(count):
        scene = rng.choice(
            (
                thing,
                thing,
                lambda: f"{thing()} {rng.choice(PREPOSITIONS)} {thing()}",
                lambda: f"{thing()} and {thing()}",
                lambda: f"{thing()} in the {rng.choice(PLACES)}",
                lambda: f"{being()} {rng.choice(DOING)}",
                lambda: f"{being()} {rng.choice(DOING)} in the {rng.choice(PLACES)}",
                lambda: f"{being()} with {thing()}",
                lambda: f"{being()} wearing {_article(adjectives() + 'hat')}",
            )
        )()
        yield rng.choice(STYLES).format(scene) if rng.random() < 0.5 else scene


def _wordnet(folder: Path, rng: random.Random) -> Iterator[tuple[str, str, bool]]:
    """Words, glosses, example sentences, and pairs of a frequent adjective and a frequent noun."""
    counts: dict[str, int] = {}
    for line in (folder / "cntlist.rev").read_text(encoding="utf-8").splitlines():
        sense, _, count = line.split()
        word = sense.split("%")[0]
        counts[word] = counts.get(word, 0) + int(count)
    frequent: dict[str, list[str]] = {"noun": [], "adj": [], "verb": [], "adv": []}
    for part in frequent:
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):
                continue
            fields, gloss = line.split(" | ", 1)
            columns = fields.split()
            words = [w.split("(")[0] for w in columns[4 : 4 + 2 * int(columns[3], 16) : 2]]
            for word in words:
                if counts.get(word.lower(), 0) >= 4:
                    frequent[part].append(word.replace("_", " "))
                if counts.get(word.lower(), 0) or rng.random() < 0.15:
                    yield "lemma", word.replace("_", " "), _held_out(word, 2)
            meanings, *examples = gloss.strip().split('"')
            for meaning in meanings.split(";"):
                meaning = re.sub(r"\([^)]*\)", "", meaning).strip()
                if 8 < len(meaning) <= 60:
                    is_held = _held_out(meaning, 2)
                    yield "gloss", meaning, is_held
                    kept = words[0].replace("_", " ")
                    if not is_held and len(kept + meaning) < 56 and rng.random() < 0.2:
                        yield "pair", f"{kept}: {meaning}", False
            for example in examples[::2]:
                if 8 < len(example) <= 72:
                    yield "example", example.strip("; "), _held_out(example, 2)
    nouns, adjectives = frequent["noun"], frequent["adj"]
    for _ in range(30_000):
        pair = f"{rng.choice(adjectives)} {rng.choice(nouns)}"
        yield "pair", pair if rng.random() < 0.5 else _article(pair), False
