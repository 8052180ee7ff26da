"""The parts of the conformance suite: pictures, streams that our encoder would not write, bad streams, and the rules of FORMAT.md that they cover."""
