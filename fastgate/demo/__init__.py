"""What `fastgate demo` shows: two small services, and a configuration in front of them."""
