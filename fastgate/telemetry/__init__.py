"""What is told to others of the traffic: traces, and decisions kept for `fastgate why`."""
