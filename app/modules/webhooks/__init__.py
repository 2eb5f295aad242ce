"""Webhooks: addresses that are told of facts, by signed requests that are repeated until they are received."""
