"""The case study of the small backend: whoever asks gets an id at once, and is told the rest."""
