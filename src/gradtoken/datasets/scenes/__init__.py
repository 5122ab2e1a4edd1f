"""Procedural scenes: endless labelled images with masks."""
