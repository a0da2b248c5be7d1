// oidc-provider in production: a process for each CPU, PostgreSQL, and one client.
//
// The client authenticates with a JWT that is signed with its secret (client_secret_jwt, HS256), and gets opaque
// access tokens (client_credentials). The configuration of the deployment is in the environment.

import cluster from 'node:cluster';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';
import pg from 'pg';

import { createTable, postgresql } from './adapter.js';

const { CLIENT_ID, CLIENT_SECRET, COOKIE_KEY, DATABASE_URL, JWK, PORT, WORKERS } = process.env;

async function primary() {
  const pool = new pg.Pool({ connectionString: DATABASE_URL });
  await createTable(pool);
  await pool.end();
  // Without keys it would use those of its examples, with a warning.
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const shared = {
    COOKIE_KEY: randomBytes(32).toString('hex'),
    JWK: JSON.stringify({ ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' }),
  };
  for (let i = 0; i < Number(WORKERS); i += 1) cluster.fork(shared);
  // Results with fewer workers could not be compared.
  cluster.on('exit', () => process.exit(1));
}

function worker() {
  const provider = new Provider(`http://127.0.0.1:${PORT}`, {
    adapter: postgresql(new pg.Pool({ connectionString: DATABASE_URL })),
    clients: [{
      client_id: CLIENT_ID,
      client_secret: CLIENT_SECRET,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: 'client_secret_jwt',
      token_endpoint_auth_signing_alg: 'HS256',
    }],
    cookies: { keys: [COOKIE_KEY] },
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
    jwks: { keys: [JSON.parse(JWK)] },
    ttl: { ClientCredentials: 300 },
  });
  createServer(provider.callback()).listen(Number(PORT), '127.0.0.1');
}

if (cluster.isPrimary) await primary();
else worker();
