"""The smallest pipeline."""
