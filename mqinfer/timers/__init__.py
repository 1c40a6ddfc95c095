"""Timers: messages that come when it is time, kept by JetStream's own schedules.

Those that handlers and clients ask for (`setter`), and ticks, for stages that the clock feeds.
"""
