"""Thin adapters that apply a plan in the trainer that people already use, one file each."""
