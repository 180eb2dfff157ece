"""File names of any bytes as printable text."""

import os

from mae_plugin.utils.printable import printable


def test_printable():
    assert printable('Ünï/日本.jpg') == 'Ünï/日本.jpg'
    assert printable(os.fsdecode(b'caf\xe9/\xc3\xbc.jpg')) == 'caf\\xe9/ü.jpg'
    assert printable('lone \ud800') == 'lone \\ud800'
