"""The tests, in folders named for the rooms of mqinfer; what several share is in `support`."""
