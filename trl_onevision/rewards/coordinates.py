"""Numbers as text writes them: what the patterns for boxes, points and spans are made of.

All are linear: possessive quantifiers, and bounds on what repeats.
"""

# Twenty digits hold every coordinate; without the bound, a million digits would go through `float`.
NUMBER = r"[-+]?(?:[0-9]{1,20}+(?:\.[0-9]{0,20}+)?|\.[0-9]{1,20}+)(?:[eE][-+]?[0-9]{1,4}+)?"
SEPARATOR = r"(?:\s*+[,;]\s*+|\s++)"
