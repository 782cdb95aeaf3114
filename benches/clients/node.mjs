// The clients of Node for benches/clients/run: `node node.mjs fetch|http|http2 URL` prints a line of JSON for each
// kind of request, and goes on when it is given a line.

import fs from "node:fs";
import http from "node:http";
import http2 from "node:http2";

const [, , which, base] = process.argv;
const MANY = 20, FEW = 3, EVENTS = 5, STEP = 40;
const large = Buffer.alloc(2 << 20, "x");

async function each(sent, requests, act) {
  const kind = { sent, requests, failed: 0, bytes: 0, status: "", note: "" };
  const statuses = new Set(), notes = new Set();
  for (let n = 0; n < requests; n++) {
    try {
      const { status, size, note } = await act();
      statuses.add(String(status));
      kind.bytes += size;
      if (note) notes.add(note);
    } catch (error) {
      kind.failed += 1;
      notes.add(error.cause?.code ?? error.code ?? error.name);
    }
  }
  kind.status = [...statuses].sort().join(", ");
  kind.note = [...notes].sort().join("; ");
  console.log(JSON.stringify(kind));
  // Meanwhile it is read how sidescale counted these.
  fs.readSync(0, Buffer.alloc(1));
}

async function* pieces() {
  for (let at = 0; at < large.length; at += 1 << 18) yield large.subarray(at, at + (1 << 18));
}

async function whole(response) {
  return { status: response.status, size: (await response.arrayBuffer()).byteLength };
}

async function events(init, path) {
  const response = await fetch(base + path, init);
  const begun = performance.now();
  const { status, size } = await whole(response);
  return { status, size, note: performance.now() - begun < (EVENTS - 1) * STEP ? "events held back" : "" };
}

async function leave() {
  const leaving = new AbortController();
  const response = await fetch(base + "/events", { signal: leaving.signal });
  await response.body.getReader().read();
  leaving.abort();
  return { status: "left", size: 0 };
}

async function fetches() {
  const post = (path, body, more) => async () => whole(await fetch(base + path, { method: "POST", body, ...more }));
  await each("GET 64 KiB", MANY, async () => whole(await fetch(base + "/bytes/65536")));
  await each("GET with trailers", MANY, async () => whole(await fetch(base + "/trailers")));
  await each("POST 2 MiB", FEW, post("/echo", large));
  await each("POST chunked, 2 MiB", FEW, async () => post("/echo", ReadableStream.from(pieces()), { duplex: "half" })());
  await each("POST 2 MiB, 413", FEW, post("/refuse", large));
  const chat = { method: "POST", body: JSON.stringify({ stream: true }) };
  await each("chat completion, stream", FEW, () => events(chat, "/v1/chat/completions"));
  await each("stream, and leaves", FEW, leave);
  await each("GET, cut by the server", FEW, async () => whole(await fetch(base + "/broken")));
}

function read(message, status) {
  return new Promise((resolve, reject) => {
    let size = 0;
    message.on("data", (piece) => (size += piece.length));
    message.on("error", reject);
    // Of http2, `end` comes before the trailers, and of a stream that was reset it does not come.
    message.on("close", () => resolve({ status: status(), size, note: trailer(message) }));
  });
}

function trailer(message) {
  const value = message.trailers?.["x-sum"] ?? message.summed;
  return value ? `trailer ${value}` : "";
}

async function kept() {
  const agent = new http.Agent({ keepAlive: true });
  const ask = (path, options = {}, body = undefined) => new Promise((resolve, reject) => {
    const request = http.request(base + path, { agent, ...options }, (response) =>
      read(response, () => response.statusCode).then(resolve, reject));
    request.on("error", reject);
    if (options.headers?.expect) request.on("continue", () => request.end(body));
    else request.end(body);
    if (options.headers?.expect) request.flushHeaders();
  });
  await each("GET 64 KiB", MANY, () => ask("/bytes/65536"));
  await each("GET with trailers", MANY, () => ask("/trailers"));
  await each("POST 2 MiB", FEW, () => ask("/echo", { method: "POST" }, large));
  await each("POST 2 MiB, Expect", FEW, () => ask("/echo", { method: "POST", headers: { expect: "100-continue" } }, large));
  await each("GET, cut by the server", FEW, () => ask("/broken"));
  agent.destroy();
}

async function multiplexed() {
  const session = http2.connect(base);
  const ask = (headers, body = undefined) => new Promise((resolve, reject) => {
    const stream = session.request(headers);
    let status = 0;
    stream.on("response", (head) => (status = head[":status"]));
    stream.on("trailers", (fields) => (stream.summed = fields["x-sum"]));
    stream.on("error", reject);
    read(stream, () => status).then(resolve, reject);
    stream.end(body);
  });
  await each("GET 64 KiB", MANY, () => ask({ ":path": "/bytes/65536" }));
  await each("GET 64 KiB, 20 at once", FEW, async () => {
    const all = await Promise.all(Array.from({ length: MANY }, () => ask({ ":path": "/bytes/65536" })));
    return { status: all[0].status, size: all.reduce((sum, one) => sum + one.size, 0) };
  });
  await each("GET with trailers", MANY, () => ask({ ":path": "/trailers" }));
  await each("POST 2 MiB", FEW, () => ask({ ":path": "/echo", ":method": "POST" }, large));
  await each("GET, cut by the server", FEW, () => ask({ ":path": "/broken" }));
  session.close();
}

await { fetch: fetches, http: kept, http2: multiplexed }[which]();
