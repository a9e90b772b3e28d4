"""A part of a wave problem computed by itself, fed with the field around it."""
