"""Makes captions from emoji names: `red_apple` becomes "a red apple, openmoji style"."""

import re
from collections import Counter

from diffjax.data.emoji import lexicon
from diffjax.data.emoji.place_names import place_with_article

MAX_CAPTION_BYTES = 96

_TONE = re.compile(r"(?:^|_)(medium-light|medium-dark|light|dark|medium)_skin_tone")
_PERSON = re.compile(r"(man|woman|person)_(.+)")
_COUPLE = re.compile(r"(couple_with_heart|kiss)_((?:wo)?man_(?:wo)?man|person_person)")
_SQUARE = re.compile(r"(black|white) (large|medium-small|medium|small) square$")
_LINKS = re.compile(r" (with|without|in|on|behind|over) ")
_AN = re.compile(r"(?i)(?!uni|use|uti|eu|ewe|one\b|one-|U\.)(?:[aeiou]|hour|x-|8)")
_COUPLES = {
    "man_man": "two men",
    "woman_woman": "two women",
    "woman_man": "a woman and a man",
    "person_person": "two people",
}
_PLURALS = {"man": "men", "woman": "women", "child": "children"}


def captions(name: str, style: str, *, is_flag: bool = False) -> tuple[str, ...]:
    """Five different captions of a picture, with at most 96 UTF-8 bytes each.

    All but the last one name the style. `name` is the CLDR short name with underscores, as in
    `drawings.Drawing`.
    """
    noun = noun_phrase(name, is_flag=is_flag)
    short = noun.replace(" skin tones", " skin").replace(" skin tone", " skin")
    bare = re.sub(r"^(?:a|an|the) ", "", short)
    drawing = f"{article(style)} {style} drawing of "
    fits = len((drawing + noun).encode()) <= MAX_CAPTION_BYTES
    return (
        drawing + (noun if fits else short),
        f"{noun}, {style} style",
        f"{short} in the {style} style",
        f"{style} emoji: {bare}",
        noun,  # most prompts name no style
    )


def noun_phrase(name: str, *, is_flag: bool = False) -> str:
    """The content of the picture in English: "a woman firefighter with dark skin tone"."""
    if is_flag:
        return f"the flag of {place_with_article(name)}"
    tones = tone_names(name)
    base = base_name(name)
    if not base:
        return f"a patch of {tones[0]} skin tone"
    head, rest = _head_and_rest(base)
    if not tones:
        return head + rest
    if len(tones) == 2:
        return f"{head}{rest}, {tones[0]} and {tones[1]} skin tones"
    if head.startswith(("two men", "two women", "two people", "a woman and", "a couple")):
        return f"{head}{rest}, both with {tones[0]} skin tone"
    if rest.startswith(" with "):
        return f"{head} with {tones[0]} skin tone and{rest.removeprefix(' with')}"
    return f"{head} with {tones[0]} skin tone{rest}"


def tone_names(name: str) -> list[str]:
    """The skin tones of a name, in order: none, one, or one for each of two people."""
    return _TONE.findall(name)


def base_name(name: str) -> str:
    """The name without its skin tones."""
    return _TONE.sub("", name).strip("_")


def article(words: str) -> str:
    """ "a" or "an", guessed from the spelling of the first word."""
    return "an" if _AN.match(words) else "a"


def _head_and_rest(base: str) -> tuple[str, str]:
    """The phrase, split where a skin tone is inserted: ("a man", " bouncing a ball")."""
    if base in lexicon.PHRASES:
        head, _, rest = lexicon.PHRASES[base].partition("|")
        return head, rest
    if match := _COUPLE.fullmatch(base):
        return _COUPLES[match[2]], " kissing" if match[1] == "kiss" else " with a heart"
    if match := _PERSON.fullmatch(base):
        return _person(match[1], match[2])
    head, link, rest = _thing(base).partition(" with ")
    return head, link + rest


def _person(who: str, predicate: str) -> tuple[str, str]:
    predicate, turned, _ = predicate.partition("_facing_right")
    rest = " facing right" if turned else ""
    if predicate == "bald":
        return f"a bald {who}", rest
    if predicate in lexicon.ROLES:
        return f"a {who} {predicate.replace('_', ' ')}", rest
    if predicate.endswith("_hair"):
        predicate = f"with_{predicate}"
    words = lexicon.PREDICATES.get(predicate, predicate).replace("_", " ")
    return f"a {who}", f" {words}{rest}"


def _thing(base: str) -> str:
    words = _SQUARE.sub(r"\2 \1 square", base.replace("_", " ").replace("&", "and"))
    last = words.split()[-1]
    if base.startswith("family_"):
        return _family(base.split("_")[1:])
    if base.startswith("keycap_"):
        return f"a keycap with {_key(base.removeprefix('keycap_'))}"
    if base in lexicon.ZODIAC:
        return f"the {base} zodiac sign"
    if last == "o'clock":
        return f"a clock showing {words}"
    if words.endswith("-thirty"):
        return f"a clock showing half past {words.removesuffix('-thirty')}"
    if match := re.fullmatch(r"(\w+) button \(blood type\)", words):
        return f"the {match[1]} blood type button"
    if match := re.fullmatch(r"Japanese (.+) button", words):
        return f'the Japanese "{match[1]}" button'
    if last == "button" or re.match(r"[A-Z!]{2,} arrow|ON! arrow", words):
        return f"the {words}"
    # Every second part is a preposition; the others get an article.
    parts = _LINKS.split(words)
    return " ".join(part if i % 2 else with_article(part) for i, part in enumerate(parts))


def with_article(words: str) -> str:
    """The words with "a" or "an", or unchanged if they are a plural or a mass noun."""
    head = re.split(r" of | and ", words)[0].split()[-1]
    many = head in lexicon.PLURAL or (
        head.endswith("s")
        and not head.endswith(("ss", "us", "is"))
        and head not in lexicon.SINGULAR_S
    )
    return words if many or head in lexicon.MASS else f"{article(words)} {words}"


def _family(members: list[str]) -> str:
    counted = [
        f"{article(who)} {who}" if n == 1 else f"two {_PLURALS.get(who, who + 's')}"
        for who, n in Counter(members).items()
    ]
    return f"a family of {', '.join(counted[:-1])} and {counted[-1]}"


def _key(key: str) -> str:
    return {"#": "a hash sign", "*": "an asterisk"}.get(key, f"the number {key}")
