# IP addresses and networks as text and as bytes. The struct Address stands in request.pxd.

# Strict: IPv4 as four decimals without leading zeros (RFC 6943 3.1.1: other forms are read in different ways
# by different readers), IPv6 as of RFC 4291 2.2, without zone. An IPv4-mapped IPv6 address becomes IPv4, so
# that a client has one address whichever socket it came by. False, with `out` undefined, for anything else.
cdef bint parse_address(Span text, Address* out) noexcept nogil
# "10.0.0.0/8", "2001:db8::/32"; without "/n" the one address. Bits behind the prefix are cleared. `bits`
# counts in the family's own width (0..32, 0..128); a network inside ::ffff:0:0/96 becomes the IPv4 network.
cdef bint parse_network(Span text, Address* out, int* bits) noexcept nogil
# RFC 5952 text; nothing for a Unix socket's (family 0).
cdef void out_address(Out* out, const Address* address) noexcept nogil
# At `at`, where 39 bytes are free; returns behind the last byte.
cdef char* put_address(char* at, const Address* address) noexcept nogil
# The first `bits` (0..128, of the 16 bytes) stay, the rest is cleared.
cdef void mask_address(Address* address, int bits) noexcept nogil
