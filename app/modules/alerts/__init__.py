"""Facts worth telling (the outbox of webhooks), and alerts: conditions that last until they are over."""
