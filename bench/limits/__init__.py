"""One limit across processes: what is admitted, and what Redis costs."""
