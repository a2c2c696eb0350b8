"""The English names of places, with their articles, for captions of flags."""

import re

# Places that take an article.
_WITH_ARTICLE = (
    "Bahamas|Comoros|Gambia|Maldives|Philippines|Seychelles|Isle of Man|"
    "(?!Heard|South Georgia).* (?:Emirates|Islands|Kingdom|Lands|Nations|Netherlands|Republic|"
    "States|Territories|Territory|Union)|Netherlands"
)
_WORDS: dict[str, str] = {
    "Hong_Kong_SAR_China": "Hong Kong",
    "Macao_SAR_China": "Macao",
    "Myanmar_(Burma)": "Myanmar",
    "Cocos_(Keeling)_Islands": "Cocos Islands",
    "St._Helena_Ascension_&_Tristan_da_Cunha": "St. Helena, Ascension & Tristan da Cunha",
    "South_Georgia_&_South_Sandwich_Islands": "South Georgia & the South Sandwich Islands",
    "St._Vincent_&_Grenadines": "St. Vincent & the Grenadines",
    "French_Southern_and_Antarctic_Lands": "French Southern & Antarctic Lands",
}


def place_with_article(name: str) -> str:
    """The place of a flag, with "the" if English uses it: "the Netherlands"."""
    words = _WORDS.get(name, name).replace("_", " ").replace("&", "and")
    return f"the {words}" if re.fullmatch(_WITH_ARTICLE, words) else words
