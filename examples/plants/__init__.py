"""The case study: drones photograph plants, models find and grade their leaves."""
