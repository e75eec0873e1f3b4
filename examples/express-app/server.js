// A course platform: a payment service posts to /webhook?token=, and what it
// says is handed to deployhook, which does what has to be done about it.
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const express = require("express");

const token = process.env.WEBHOOK_TOKEN || "";
const deployhook = process.env.DEPLOYHOOK || "http://127.0.0.1:8484";
const port = Number(process.env.PORT || 3000);
if (token.length < 16) {
  console.error("WEBHOOK_TOKEN has fewer than 16 characters: make one with openssl rand -hex 32");
  process.exit(1);
}

// The commit that runs here: the deploy writes it beside this file.
let version = "not deployed";
try {
  version = fs.readFileSync(path.join(__dirname, "VERSION"), "utf8").trim();
} catch (err) {
  if (err.code !== "ENOENT") throw err;
}

// Hashes have one length, so that the time of comparing them says nothing.
function equal(a, b) {
  const hash = (s) => crypto.createHash("sha256").update(s).digest();
  return crypto.timingSafeEqual(hash(a), hash(b));
}

const app = express();
app.disable("x-powered-by");

app.get("/", (req, res) => res.type("text").send("Courses\n"));
app.get("/healthz", (req, res) => res.json({ version }));

// Nothing of a body is read before the token was right.
function authentic(req, res, next) {
  const given = req.query.token;
  if (typeof given !== "string" || !equal(given, token)) {
    return res.status(401).json({ message: "wrong token" });
  }
  next();
}

app.post("/webhook", authentic, express.json({ limit: "64kb" }), async (req, res) => {
  const event = req.body;
  if (!event || typeof event.id !== "string" || typeof event.type !== "string") {
    return res.status(400).json({ message: "an event has an id and a type" });
  }
  // The payment's id makes a repeated one harmless: deployhook answers it with
  // the run that is there. Its answer is passed on, so that the payment service
  // comes again when deployhook could not store the event.
  try {
    const answer = await fetch(`${deployhook}/hooks/webhook?token=${encodeURIComponent(token)}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": event.id },
      body: JSON.stringify(event),
      redirect: "error",
      signal: AbortSignal.timeout(10000),
    });
    res.status(answer.status).type("json").send(await answer.text());
  } catch (err) {
    // The address has the token in it: only what kind of error it was is told.
    console.error("handing an event on:", err.name);
    res.status(503).set("Retry-After", "10").json({ message: "not stored, come again" });
  }
});

// The last handler: a body that is no JSON, or too large.
app.use((err, req, res, next) => {
  res.status(err.status || 500).json({ message: err.status ? "the body is not JSON of at most 64 KB" : "failed" });
});

const server = app.listen(port, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${server.address().port}, ${version}`));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
