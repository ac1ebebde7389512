"""A caption in the words that the pages and the API show."""

from caption_generator.search import Caption


def words_of(caption: Caption) -> tuple[tuple[str, float], ...]:
    """The words, each with its probability, without the end of the sentence, which `Caption.words` has last."""
    return caption.words[:-1]


def headline(caption: Caption) -> str:
    """The caption with a capital letter."""
    return f"{caption.text[:1].upper()}{caption.text[1:]}"


def alt_text(caption: Caption) -> str:
    """The caption as a sentence."""
    return f"{headline(caption)}."
