"""What a message names, without its whole sentence: that may be mended, names and numbers may not."""


def quotes(text, *words):
    """The names and numbers are in the message, in this order; " ... " in one of them stands for other words."""
    place = 0
    for word in (part for each in words for part in each.split(" ... ")):
        place = text.find(word, place) + len(word)
        assert place >= len(word), f"{word!r} is not in {text!r}, or not in this order"
    return True
