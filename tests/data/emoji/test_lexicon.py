from diffjax.data.emoji import drawings, lexicon
from diffjax.data.emoji.captions import base_name, noun_phrase


def test_every_phrase_belongs_to_a_name_and_says_more_than_the_rules(monkeypatch):
    bases = {base_name(drawing.name) for drawing in drawings.catalogue()}
    for name, phrase in list(lexicon.PHRASES.items()):
        assert name in bases, name
        monkeypatch.delitem(lexicon.PHRASES, name)
        assert "|" in phrase or noun_phrase(name) != phrase, name


def test_every_role_has_a_man_a_woman_and_a_neutral_name():
    names = {drawing.name for drawing in drawings.catalogue()}
    assert all({role, f"man_{role}", f"woman_{role}"} <= names for role in lexicon.ROLES)
