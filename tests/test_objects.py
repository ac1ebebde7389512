"""Tests of caption_generator.objects."""

from caption_generator.objects import hallucinated, named_objects, nouns, synonyms


def test_words_for_the_same_stand_together():
    assert {"dog", "puppies"} <= synonyms()["puppy"]
    assert "grass" in synonyms()["lawns"]
    assert "cat" not in synonyms()["dog"]
    assert not {"a", "red", "running", "two"} & synonyms().keys()
    assert all(word.replace("-", "").replace(" ", "").isalpha() for word in synonyms())


def test_places_are_objects_and_no_things():
    assert {"woman", "giraffes", "frisbee", "jacket", "cow", "plants"} <= nouns()
    places = {"street", "beach", "lakes", "water"}  # ImageNet has a seashore, a lakeside and a fountain
    assert places <= synonyms().keys() and not places & nouns()


def test_named_objects_are_the_words_with_their_synonyms():
    named = named_objects(["a woman walks her puppy", "a lady with a dog"])
    assert named >= {"woman", "man", "dogs", "walks"}
    words = ["a", "man", "with", "a", "dog", "and", "a", "frisbee", "and", "a", "frisbee"]
    assert hallucinated(words, named) == ["frisbee"]
