"""Images to formal text, reasoning over it, and rows to learn from: R1-Onevision's cross-modal pipeline."""
