"""Worked examples; each folder is one."""
