"""Anybody's text made harmless to look at: keys of objects are anybody's."""


def printable(text: str) -> str:
    """The text with what is not printable escaped: newlines, escape codes, marks that turn the direction of writing."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
