// The gateway in Node: undici for the requests, and in front of it Node's own http server, or Express.
// usage: node gateway.js PLAIN_OR_EXPRESS PORT UPSTREAM_PORT POOL KEEP_ALIVE_S PREFIX AGGREGATE_PATH PARTS_JSON
"use strict";
const http = require("node:http");
const { pipeline } = require("node:stream");
const { Pool } = require("undici");

const [kind, port, upstreamPort, connections, keepAlive, prefix, aggregatePath, partsText] = process.argv.slice(2);
const parts = Object.entries(JSON.parse(partsText));
const upstream = new Pool(`http://127.0.0.1:${upstreamPort}`, { connections: Number(connections), pipelining: 1 });
const hopByHop = new Set([
  "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host",
]);

function kept(headers) {
  const found = {};
  for (const name in headers) if (!hopByHop.has(name)) found[name] = headers[name];
  return found;
}

async function part(path) {
  const answer = await upstream.request({ path, method: "GET" });
  if (answer.statusCode !== 200) {
    await answer.body.dump();
    throw new Error(`${path}: ${answer.statusCode}`);
  }
  return answer.body.json();
}

async function aggregate(response) {
  const values = await Promise.all(parts.map(([, path]) => part(path)));
  const page = {};
  parts.forEach(([name], i) => { page[name] = values[i]; });
  const body = Buffer.from(JSON.stringify(page));
  response.writeHead(200, { "Content-Type": "application/json", "Content-Length": body.length });
  response.end(body);
}

async function forward(request, response) {
  const body = request.method === "GET" || request.method === "HEAD" ? null : request;
  const answer = await upstream.request({
    path: request.url, method: request.method, headers: kept(request.headers), body,
  });
  response.writeHead(answer.statusCode, kept(answer.headers));
  pipeline(answer.body, response, () => {});
}

function fail(response) {
  if (response.headersSent) response.destroy();
  else response.writeHead(502, { "Content-Length": 0 }).end();
}

function handle(request, response) {
  if (parts.length && request.url === aggregatePath) aggregate(response).catch(() => fail(response));
  else if (request.url.startsWith(prefix)) forward(request, response).catch(() => fail(response));
  else response.writeHead(404, { "Content-Length": 0 }).end();
}

let server;
if (kind === "express") {
  const app = require("express")();
  app.disable("x-powered-by");
  if (parts.length) app.get(aggregatePath, (request, response) => { aggregate(response).catch(() => fail(response)); });
  app.use(prefix, (request, response) => {
    request.url = request.originalUrl;
    forward(request, response).catch(() => fail(response));
  });
  server = http.createServer(app);
} else {
  server = http.createServer(handle);
}
server.keepAliveTimeout = Number(keepAlive) * 1000;
server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
