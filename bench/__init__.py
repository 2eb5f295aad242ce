"""Measurements that anyone can repeat: medians of repeated runs, sizes in the output."""
