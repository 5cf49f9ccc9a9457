"""R1-Onevision-Bench: read its file, let a model answer, score by rule, report."""
