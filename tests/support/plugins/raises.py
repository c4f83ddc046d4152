"""Fails when it is imported."""

NUMBERS = {"one": 1}
TWO = NUMBERS["two"]
