"""Kills, full disks and broken networks; slow."""
