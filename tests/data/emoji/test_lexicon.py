from diffjax.data.emoji import drawings, lexicon
from diffjax.data.emoji.phrases import base_name, noun_phrase


def test_every_phrase_belongs_to_a_name_and_differs_from_what_the_rules_give(monkeypatch):
    bases = {base_name(drawing.name) for drawing in drawings.catalogue()}
    for name, phrase in list(lexicon.PHRASES.items()):
        assert name in bases, name
        monkeypatch.delitem(lexicon.PHRASES, name)
        assert "|" in phrase or noun_phrase(name) != phrase, name


def test_every_role_exists_as_a_man_a_woman_and_a_person():
    names = {drawing.name for drawing in drawings.catalogue()}
    assert all({role, f"man_{role}", f"woman_{role}"} <= names for role in lexicon.ROLES)
