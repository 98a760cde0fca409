"""A pipe with a text in it, as a supervisor reads its configuration from, right or wrong."""

import os


def sent_text(text: str) -> int:
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    return reader
