"""The peers, in the order of the report."""

from __future__ import annotations

from bench.peers.aiohttp import Aiohttp
from bench.peers.base import Peer
from bench.peers.envoy import Envoy
from bench.peers.fastapi import FastApi
from bench.peers.fastgate import Fastgate
from bench.peers.fastgate_gather import FastgateGather
from bench.peers.haproxy import Haproxy
from bench.peers.nginx import Nginx
from bench.peers.node import Express, Node
from bench.peers.proxypy import ProxyPy
from bench.peers.relay import Relay

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Fastgate(),
        Nginx(),
        Haproxy(),
        Envoy(),
        Relay(),
        Aiohttp(),
        FastApi(),
        ProxyPy(),
        Node(),
        Express(),
        FastgateGather(),
    )
}
