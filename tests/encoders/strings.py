# ruff: noqa: RUF001 (the texts contain letters that look alike on purpose)
"""Difficult texts for tokenizers, and lines for training small tokenizers, from a seed."""

import random

# Real words for invented sentences; enough for a vocabulary with pieces of all lengths.
WORDS = {
    "en": "a red apple on the table two blue birds in sky cat sat mat painting of old man running "
    "through wet streets under an orange umbrella photograph teddy bear swimming at Olympics 400m "
    "butterfly event brain riding rocketship heading towards moon dragon fruit wearing karate belt",
    "de": "ein grüner Apfel über dem Tisch zwei schöne Vögel fliegen Straße größer weiß",
    "fr": "une pomme très sucrée déjà à côté de la forêt où l'été naît garçon cœur",
    "ru": "красное яблоко на столе две синие птицы в небе старик бежит по улице",
    "ja": "赤い りんご テーブル の 上 に 二羽 青い 鳥 空 ねこ すわる カメラ",
    "ar": "تفاحة حمراء على الطاولة طائران أزرقان في السماء",
}
COMPATIBLE = "ﬁﬂ①②ⅣⅫ½¼²³ª℃Å™ＡＢＣａｂｃ１２３！？ｱｲｳｶﾞﾊﾟ㍍㌔㎏㈱Ω…‥¨´ﷺ"
BLANKS = "  \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff"
CONTROLS = (
    "".join(map(chr, [*range(32), *range(127, 160)])) + "\u200c\u200d\u200e\u200f\u202e\u2069\xad"
)
EMOJI = ("🍎", "👨‍👩‍👧‍👦", "❤️", "👍🏽", "🇩🇪", "1️⃣", "☕", "🏳️‍🌈")
MARKED = (
    "e\u0301",
    "n\u0303",
    "a\u0323\u0302",
    "\u1112\u1161\u11ab",
    "क्षि",
    "é",
    "o\u0308\u0304",
    "\u0301",
)
LETTERS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGH0123456789.,!?'-äöüßéèçñøåłžαβγжщыяאבגדे中文字漢かカ한국ไท▁"
)
SPECIAL = (
    *("<extra_id_0>", "<extra_id_1>", "<extra_id_99>", "<extra_id_100>", "<extra_id_124>"),
    *("</s>", "<pad>", "<unk>", "<s>", "<extra_id_", "<0x41>", "<"),
)
EDGES = (
    "",
    " ",
    "   ",
    "\n",
    "a",
    "▁",
    "▁a",
    "a▁",
    " a ",
    "a  b",
    "\u200b",
    "</s>",
    "x </s>",
    "<pad> x",
)


def corpus(lines: int = 3000, seed: int = 0) -> list[str]:
    """Lines of a few words in one language each; half of the lines are English."""
    draw = random.Random(seed)
    words = {language: text.split() for language, text in WORDS.items()}
    languages = ["en"] * len(words) + list(words)
    return [
        " ".join(draw.choices(words[draw.choice(languages)], k=draw.randint(3, 12)))
        for _ in range(lines)
    ]


def texts(count: int = 1000, seed: int = 0) -> list[str]:
    """Texts of mixed words, scripts, blanks, controls, emoji, marks and special tokens.

    The first are edge cases; two of the others have 10,000 characters.
    """
    draw = random.Random(seed)
    words = " ".join(WORDS.values()).split()
    kinds = (
        lambda: draw.choice(words) + " ",
        lambda: draw.choice(words) + " ",
        lambda: draw.choice(LETTERS),
        lambda: draw.choice(COMPATIBLE),
        lambda: draw.choice(BLANKS) * draw.choice((1, 1, 2, 5)),
        lambda: draw.choice(CONTROLS),
        lambda: draw.choice(EMOJI),
        lambda: draw.choice(MARKED),
        lambda: draw.choice(SPECIAL),
        # Any character; surrogates are none.
        lambda: chr(draw.choice((draw.randrange(32, 0xD800), draw.randrange(0xE000, 0x30000)))),
    )
    long = [" ".join(draw.choices(words, k=3000))[:10_000], "a red apple " * 834]
    found = [*EDGES, *(text[:10_000] for text in long)]
    while len(found) < count:
        some = draw.sample(kinds, draw.randint(1, 4))
        parts = (
            draw.choice(some)() + draw.choice(("", "", " ")) for _ in range(draw.randint(1, 16))
        )
        found.append("".join(parts))
    return found
