"""The integration harness: real sockets, real processes, and readers that forgive nothing.

- `wire`: strict reading of HTTP/1.1 messages; any doubt about the framing is a failed test.
- `client`: a raw client. It sends the bytes that it is given, and reads answers by `wire`.
- `upstream`: a scripted upstream that records each byte it was sent; `handlers`: ready-made services.
- `faults`: a TCP proxy that delays, cuts, resets, trickles or swallows.
- `gateway`: the gateway as a child process, its configuration, its log, and the check that nothing leaked.
- `answers`: what an answer of the gateway itself has to look like.
- `dns`: a scripted name server; `clock`: a clock that the test moves.
- `peers`: nginx, as an upstream and as a yardstick for this harness.
"""
