# Requests and records made from Python, so that tests and benchmarks reach the core without a connection.

cdef class SampleRequest:
    cdef RequestView view
    cdef Field[64] fields
    cdef Span[MAX_CAPTURES] names
    cdef list kept          # the bytes that the spans point into
    cdef Span _keep(self, object text)

cdef class SampleExchange:
    cdef ExchangeRecord record
    cdef Field[64] fields
    cdef list kept
    cdef Span _keep(self, object text)
