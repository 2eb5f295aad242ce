"""Agents: long conversations with language models, as tasks."""
