// A real authorization server for the tests: oidc-provider, on a free port of loopback, over HTTPS.
//
// It is told by its parent, a line of JSON on standard input at a time, and answers with a line each. It ends
// when the parent closes the pipe. Tokens come from the provider's own models, at its own token endpoint, by a
// grant type that stands in for the browser and the subscriber before it.

import { generateKeyPair } from 'node:crypto';
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

import Provider from 'oidc-provider';

const GRANT = 'urn:ags-tests:account';
const ALGORITHMS = { RS256: ['rsa', { modulusLength: 2048 }], ES256: ['ec', { namedCurve: 'P-256' }] };

const [certificate, privateKey, application, resourceServer, secret] = process.argv.slice(2);

const realNow = Date.now;

let issuer;
let keys = [];
let serve;

async function freshKeys() {
  return Promise.all(Object.entries(ALGORITHMS).map(async ([alg, how]) => {
    const pair = await promisify(generateKeyPair)(...how);
    return { ...pair.privateKey.export({ format: 'jwk' }), alg, use: 'sig' };
  }));
}

// One client for each algorithm, for that is where a client says how its ID tokens are signed.
function clients() {
  const common = { client_secret: secret, redirect_uris: [], response_types: [] };
  const apps = Object.keys(ALGORITHMS).map((alg) => ({
    ...common,
    client_id: `${application}-${alg}`,
    grant_types: [GRANT],
    id_token_signed_response_alg: alg,
  }));
  const asking = ['client_secret_basic', 'client_secret_post'].map((method) => ({
    ...common,
    client_id: `${resourceServer}-${method}`,
    grant_types: [],
    token_endpoint_auth_method: method,
  }));
  return [...apps, ...asking];
}

async function grant(ctx) {
  const { client, params, provider } = ctx.oidc;
  const { account, audience, claims, expires_in: expiresIn, nonce, scope } = params;
  const lifetime = expiresIn ? Number(expiresIn) : undefined;
  const accessToken = new provider.AccessToken({
    accountId: account, client, expiresIn: lifetime, gty: GRANT, scope,
  });
  if (audience) accessToken.setAudience(audience);
  const idToken = new provider.IdToken({ sub: account }, { ctx });
  idToken.scope = 'openid';
  if (nonce) idToken.set('nonce', nonce);
  for (const [name, value] of Object.entries(extra(claims))) idToken.set(name, value);
  const expiresAt = lifetime ? Math.floor(Date.now() / 1000) + lifetime : undefined;
  ctx.body = {
    access_token: await accessToken.save(),
    id_token: await idToken.issue({ use: 'idtoken', expiresAt }),
    token_type: accessToken.tokenType,
    expires_in: accessToken.expiration,
  };
}

function extra(claims) {
  return claims ? JSON.parse(claims) : {};
}

function start() {
  const provider = new Provider(issuer, {
    clients: clients(),
    cookies: { keys: [secret] },
    extraTokenClaims: (ctx) => extra(ctx.oidc.params.claims),
    features: {
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    jwks: { keys },
    ttl: { AccessToken: 600, IdToken: 600 },
  });
  const parameters = ['account', 'audience', 'claims', 'expires_in', 'nonce', 'scope'];
  provider.registerGrantType(GRANT, grant, parameters);
  serve = provider.callback();
}

const commands = {
  // The set of keys is published anew: fresh ones first, with which is signed, and those before if they are kept.
  async rotate({ keep }) {
    keys = [...await freshKeys(), ...(keep ? keys : [])];
    start();
    return {};
  },
  // Tokens expire by this clock: no test has to wait for that.
  async clock({ ahead }) {
    Date.now = () => realNow() + ahead * 1000;
    return {};
  },
};

const tls = { cert: readFileSync(certificate), key: readFileSync(privateKey) };
const server = createServer(tls, (request, response) => serve(request, response));
server.listen(0, '127.0.0.1', async () => {
  issuer = `https://127.0.0.1:${server.address().port}`;
  await commands.rotate({ keep: false });
  console.log(JSON.stringify({ issuer }));
  const lines = createInterface({ input: process.stdin });
  lines.on('close', () => process.exit(0));
  for await (const line of lines) {
    const { command, ...how } = JSON.parse(line);
    console.log(JSON.stringify(await commands[command](how)));
  }
});
