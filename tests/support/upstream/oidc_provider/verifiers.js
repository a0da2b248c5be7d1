// Verifies access tokens as a resource server does, with jose and with jwks-rsa.
//
//   node verifiers.js JWKS_URL AUDIENCE
//
// Reads a JSON object from each line: {"verifier": NAME, "token": JWT}, or {"shift": MILLISECONDS} to move the
// clocks of the caches. Answers each with a line: {"error": ""}, or with the reason why the token is refused.

import { createPublicKey } from "node:crypto";
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";
import jwksClient from "jwks-rsa";

const [url, audience] = process.argv.slice(2);

// The caches read these clocks. That of `exp` is `new Date()`, which is not moved.
let shift = 0;
const [wall, monotonic] = [Date.now, performance.now.bind(performance)];
Date.now = () => wall() + shift;
performance.now = () => monotonic() + shift;

const withJose = (options) => createRemoteJWKSet(new URL(url), options);
const withJwksRsa = (options) => {
  const client = jwksClient({ jwksUri: url, ...options });
  return async ({ kid }) => createPublicKey((await client.getSigningKey(kid)).getPublicKey());
};

const verifiers = {
  "jose": withJose({}),
  "jose, 300 s": withJose({ cacheMaxAge: 300_000 }),
  "jwks-rsa": withJwksRsa({}),
  "jwks-rsa, 300 s": withJwksRsa({ cacheMaxAge: 300_000 }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line);
  let error = "";
  if ("shift" in message) {
    shift = message.shift;
  } else {
    try {
      await jwtVerify(message.token, verifiers[message.verifier], { algorithms: ["ES256"], issuer: "ags", audience });
    } catch (problem) {
      error = `${problem.name}: ${problem.message}`;
    }
  }
  console.log(JSON.stringify({ error }));
}
