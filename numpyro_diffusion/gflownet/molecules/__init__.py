"""Molecules made of fragments: an environment, rewards, and what is made with them."""
