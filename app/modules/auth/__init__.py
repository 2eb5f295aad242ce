"""Who may use the service: users and their login sessions."""
