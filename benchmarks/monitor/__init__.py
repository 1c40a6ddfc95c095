"""The monitor's promise, simulated: false alarms of stable months, rows to detect of a change."""
