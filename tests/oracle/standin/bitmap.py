"""What tini's tests use of a package that Debian does not have: the bits of a
string of 0 and 1, counted from its end."""


class BitMap(object):
    def __init__(self, bits):
        self.bits = bits

    @classmethod
    def fromstring(cls, bits):
        return cls(bits)

    def nonzero(self):
        return [i for i, bit in enumerate(reversed(self.bits)) if bit == "1"]
