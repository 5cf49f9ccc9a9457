"""A completion's text -> the answer it states, as a typed value -> equal to the gold or not.

`extract` finds where an answer is stated, `markup` takes off what only dresses it, `parse` and its kin read it
whole, `compare` says whether two are equal, `task` says of which kind a gold is. The only folder that reads
answers; it imports the standard library and rapidfuzz.
"""
