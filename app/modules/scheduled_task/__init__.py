"""Tasks that look after the service itself."""
