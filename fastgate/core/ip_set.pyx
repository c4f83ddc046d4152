# Sets of networks.
#
# One path-compressed binary trie for each family: n networks need at most 2n - 1 nodes of 32 bytes. A walk
# through 100,000 networks would take some 17 dependent loads, so a jump table over the first bits (up to 16,
# about as many entries as networks, 8 bytes each) takes their place and a few nodes remain. Worst case for
# each network: 2 nodes and 1..2 jump entries, 64 + 16 bytes.

from collections.abc import Iterable

from libc.stdlib cimport calloc, free, realloc

cdef extern from *:
    int _net_clz64 "__builtin_clzll"(unsigned long long) noexcept nogil

cdef enum:
    _NET_JUMP_FROM = 64        # networks, below which the table is not worth its bytes
    _NET_JUMP_MAX = 16


cdef inline void _net_key(const Address* address, uint64_t* high, uint64_t* low) noexcept nogil:
    cdef uint64_t h = 0, l = 0
    cdef int i
    if address.family == 4:
        for i in range(12, 16):
            h = (h << 8) | address.bytes[i]
        high[0] = h << 32
        low[0] = 0
        return
    for i in range(8):
        h = (h << 8) | address.bytes[i]
        l = (l << 8) | address.bytes[8 + i]
    high[0] = h
    low[0] = l


cdef inline bint _net_under(uint64_t high, uint64_t low, const NetNode* node) noexcept nogil:
    # Whether the key begins with the node's bits.
    if node.bits <= 64:
        return node.bits == 0 or (high ^ node.high) >> (64 - node.bits) == 0
    return high == node.high and (low ^ node.low) >> (128 - node.bits) == 0


cdef inline int _net_bit(uint64_t high, uint64_t low, int at) noexcept nogil:
    return <int>((high >> (63 - at)) & 1) if at < 64 else <int>((low >> (127 - at)) & 1)


cdef inline int _net_common(uint64_t high, uint64_t low, const NetNode* node) noexcept nogil:
    if high != node.high:
        return _net_clz64(high ^ node.high)
    if low != node.low:
        return 64 + _net_clz64(low ^ node.low)
    return 128


cdef inline uint64_t _net_bits(uint64_t high, uint64_t low, int at, int width) noexcept nogil:
    # `width` (1..16) bits from position `at`.
    if at >= 64:
        return (low << (at - 64)) >> (64 - width)
    if at == 0:
        return high >> (64 - width)
    return ((high << at) | (low >> (64 - at))) >> (64 - width)


cdef uint32_t _net_node(NetTrie* trie, uint64_t high, uint64_t low, int bits, bint member) noexcept nogil:
    cdef uint32_t at = trie.used
    cdef NetNode* node = &trie.nodes[at]
    trie.used += 1
    node.high = high
    node.low = low
    node.bits = <uint8_t>bits
    node.member = member
    node.child[0] = 0
    node.child[1] = 0
    return at


cdef bint _net_insert(NetTrie* trie, uint64_t high, uint64_t low, int bits) noexcept nogil:
    # False if it was there. The nodes have been reserved, so links stay where they are.
    cdef uint32_t* link = &trie.root
    cdef NetNode* node
    cdef uint32_t old, fork
    cdef int common
    while link[0]:
        old = link[0]
        node = &trie.nodes[old]
        common = min(_net_common(high, low, node), min(bits, <int>node.bits))
        if common == node.bits:
            if bits == node.bits:
                if node.member:
                    return False
                node.member = 1
                return True
            link = &node.child[_net_bit(high, low, node.bits)]
        elif common == bits:
            fork = _net_node(trie, high, low, bits, True)
            trie.nodes[fork].child[_net_bit(node.high, node.low, bits)] = old
            link[0] = fork
            return True
        else:
            # The fork keeps one key whole: only its first `common` bits are ever looked at.
            fork = _net_node(trie, high, low, common, False)
            trie.nodes[fork].child[_net_bit(node.high, node.low, common)] = old
            link[0] = fork
            link = &trie.nodes[fork].child[_net_bit(high, low, common)]
    link[0] = _net_node(trie, high, low, bits, True)
    return True


cdef inline int _net_walk(
    const NetTrie* trie, uint64_t high, uint64_t low, uint32_t at, int best
) noexcept nogil:
    cdef const NetNode* node
    while at:
        node = &trie.nodes[at]
        if not _net_under(high, low, node):
            break
        if node.member:
            best = node.bits
        if node.bits == 128:
            break
        at = node.child[_net_bit(high, low, node.bits)]
    return best


cdef int _net_longest(const NetTrie* trie, uint64_t high, uint64_t low) noexcept nogil:
    cdef const NetJump* jump
    if trie.jump_bits == 0:
        return _net_walk(trie, high, low, trie.root, -1)
    if not _net_under(high, low, &trie.nodes[trie.root]):
        return -1
    jump = &trie.jumps[_net_bits(high, low, trie.jump_at, trie.jump_bits)]
    return _net_walk(trie, high, low, jump.node, jump.best)


cdef int _net_finish(NetTrie* trie, Py_ssize_t networks, int width) except -1:
    # Gives back the nodes that were reserved in vain and lays the jump table.
    cdef NetNode* kept
    cdef const NetNode* node
    cdef uint64_t high, low, i
    cdef uint32_t at
    cdef int reach, best
    if trie.nodes == NULL:
        return 0
    kept = <NetNode*>realloc(trie.nodes, trie.used * sizeof(NetNode))
    if kept != NULL:
        trie.nodes = kept
    if networks < _NET_JUMP_FROM:
        return 0
    trie.jump_at = trie.nodes[trie.root].bits
    while trie.jump_bits < min(_NET_JUMP_MAX, width - trie.jump_at) and 1 << trie.jump_bits <= networks:
        trie.jump_bits += 1
    trie.jumps = <NetJump*>calloc(<size_t>1 << trie.jump_bits, sizeof(NetJump))
    if trie.jumps == NULL:
        trie.jump_bits = 0
        raise MemoryError
    reach = trie.jump_at + trie.jump_bits
    for i in range(<uint64_t>1 << trie.jump_bits):
        # The root's bits followed by `i`; what follows is not looked at before `reach`.
        high = trie.nodes[trie.root].high
        low = trie.nodes[trie.root].low
        _net_splice(&high, &low, trie.jump_at, trie.jump_bits, i)
        at = trie.root
        best = -1
        while at:
            node = &trie.nodes[at]
            if node.bits >= reach:
                break
            if not _net_under(high, low, node):
                at = 0
                break
            if node.member:
                best = node.bits
            at = node.child[_net_bit(high, low, node.bits)]
        trie.jumps[i].node = at
        trie.jumps[i].best = <int16_t>best
    return 0


cdef void _net_splice(uint64_t* high, uint64_t* low, int at, int width, uint64_t value) noexcept nogil:
    # Writes `width` bits of `value` at position `at`.
    cdef int i, position
    cdef uint64_t bit
    for i in range(width):
        position = at + i
        bit = (value >> (width - 1 - i)) & 1
        if position < 64:
            high[0] = (high[0] & ~(<uint64_t>1 << (63 - position))) | (bit << (63 - position))
        else:
            low[0] = (low[0] & ~(<uint64_t>1 << (127 - position))) | (bit << (127 - position))


cdef class IpSet:
    """An immutable set of IPv4 and IPv6 networks with longest-prefix match.

    networks: CIDR strings or bare addresses; bits behind a prefix are ignored. Raises ValueError for anything
    else. An IPv6 network never holds an IPv4 client, not even ::/0: IPv4-mapped addresses are IPv4 (see
    `parse_address`).
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        if self.count:
            raise TypeError("an IpSet is immutable")
        cdef Address address
        cdef int bits = 0
        cdef Py_ssize_t n4 = 0
        cdef bytes raw
        cdef tuple texts = tuple(networks)
        cdef Py_ssize_t room = 2 * len(texts) + 1
        if room > 1 << 31:
            raise ValueError("too many networks")
        for text in texts:
            raw = text.encode("utf-8", "surrogatepass")
            if not parse_network(span_of(raw, len(raw)), &address, &bits):
                raise ValueError(f"{text!r} is not an IP network")
            if self._add(&address, bits, room):
                self.count += 1
                n4 += address.family == 4
        _net_finish(&self.v4, n4, 32)
        _net_finish(&self.v6, self.count - n4, 128)

    def __dealloc__(self):
        free(self.v4.nodes)
        free(self.v4.jumps)
        free(self.v6.nodes)
        free(self.v6.jumps)

    cdef int _add(self, const Address* address, int bits, Py_ssize_t room) except -1:
        cdef NetTrie* trie = &self.v4 if address.family == 4 else &self.v6
        cdef uint64_t high = 0, low = 0
        if trie.nodes == NULL:
            # calloc: pages that stay untouched cost nothing until they are given back.
            trie.nodes = <NetNode*>calloc(<size_t>room, sizeof(NetNode))
            if trie.nodes == NULL:
                raise MemoryError
            trie.used = 1
        _net_key(address, &high, &low)
        return _net_insert(trie, high, low, bits)

    cdef int longest(self, const Address* address) noexcept nogil:
        cdef uint64_t high = 0, low = 0
        if address.family == 4:
            if self.v4.root == 0:
                return -1
            _net_key(address, &high, &low)
            return _net_longest(&self.v4, high, low)
        if address.family == 6 and self.v6.root:
            _net_key(address, &high, &low)
            return _net_longest(&self.v6, high, low)
        return -1

    cdef bint holds(self, const Address* address) noexcept nogil:
        return self.longest(address) >= 0

    def match(self, str address not None) -> int | None:
        """The prefix length of the longest network that holds `address`, or None. Raises ValueError."""
        cdef bytes raw = address.encode("utf-8", "surrogatepass")
        cdef Address parsed
        cdef int found
        if not parse_address(span_of(raw, len(raw)), &parsed):
            raise ValueError(f"{address!r} is not an IP address")
        found = self.longest(&parsed)
        return None if found < 0 else found

    def __len__(self) -> int:
        return self.count

    def __contains__(self, str address not None) -> bool:
        return self.match(address) is not None

    @property
    def size_bytes(self) -> int:
        """Bytes that the tries and their jump tables take."""
        cdef size_t total = (self.v4.used + self.v6.used) * sizeof(NetNode)
        if self.v4.jump_bits:
            total += sizeof(NetJump) << self.v4.jump_bits
        if self.v6.jump_bits:
            total += sizeof(NetJump) << self.v6.jump_bits
        return total


cdef class IpFilterCore:
    """Allow and block lists, from a config IpFilter (attributes name, allow, block, report_only).

    A blocked address is refused unless an allow network that holds it is longer than the block network. If
    `allow` is not empty, addresses in none of its networks are refused, Unix sockets' peers (which have none)
    among them.
    """

    def __init__(self, config: object) -> None:
        self.name = config.name
        self.report_only = config.report_only
        self.allow = IpSet(config.allow)
        self.block = IpSet(config.block)

    cdef bint refuses(self, const Address* address) noexcept nogil:
        cdef int allowed = -1, blocked = -1
        if self.block.count:
            blocked = self.block.longest(address)
        if self.allow.count:
            allowed = self.allow.longest(address)
            if allowed > blocked:
                return False
        elif blocked < 0:
            return False
        if self.report_only:
            self.reported += 1
            return False
        self.refused += 1
        return True

    def counts(self):
        return {"refused": self.refused, "reported": self.reported}

    def refuses_address(self, str address not None) -> bool:
        """`refuses` for an address as text; "" stands for a Unix socket's peer. ValueError for no address."""
        cdef bytes raw = address.encode("utf-8", "surrogatepass")
        cdef Address parsed
        parsed.family = 0
        if address and not parse_address(span_of(raw, len(raw)), &parsed):
            raise ValueError(f"{address!r} is not an IP address")
        return self.refuses(&parsed)
