"""Instances of the user's classes for copies: see `fluxax._instances`."""

from fluxax._instances import NoInstance, alike, blank, slots_of, space_of

__all__ = ["NoInstance", "alike", "blank", "slots_of", "space_of"]
