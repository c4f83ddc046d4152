"""What the gateway tells of itself and of the traffic: metrics, traces, decisions kept for `fastgate why`."""
