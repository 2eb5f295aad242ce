"""`make soak`: the seeded mix of all faults for minutes, with plots of what it did to lateness, queues and memory."""
