// Storage of oidc-provider in a table of PostgreSQL. Each deployment writes such an adapter.

const SCHEMA = `
CREATE TABLE artifact (
  id text, model text, payload jsonb NOT NULL,
  grant_id text, user_code text, uid text,
  expires_at timestamptz, consumed_at timestamptz,
  PRIMARY KEY (id, model)
);
CREATE INDEX ON artifact (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX ON artifact (user_code) WHERE user_code IS NOT NULL;
CREATE INDEX ON artifact (uid) WHERE uid IS NOT NULL;
`;

const FIND = 'SELECT payload, consumed_at FROM artifact WHERE model = $1 AND';

const STATEMENTS = {
  upsert: `
    INSERT INTO artifact (model, id, payload, grant_id, user_code, uid, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))
    ON CONFLICT (id, model) DO UPDATE SET
      payload = excluded.payload, grant_id = excluded.grant_id, user_code = excluded.user_code,
      uid = excluded.uid, expires_at = excluded.expires_at`,
  find: `${FIND} id = $2`,
  findByUserCode: `${FIND} user_code = $2`,
  findByUid: `${FIND} uid = $2`,
  consume: 'UPDATE artifact SET consumed_at = now() WHERE model = $1 AND id = $2',
  destroy: 'DELETE FROM artifact WHERE model = $1 AND id = $2',
  revokeByGrantId: 'DELETE FROM artifact WHERE model = $1 AND grant_id = $2',
};

export const createTable = (pool) => pool.query(SCHEMA);

export const postgresql = (pool) => class PostgreSQL {
  constructor(model) {
    this.model = model;
  }

  // A named statement is parsed once for each connection.
  async run(name, ...values) {
    const { rows: [row] } = await pool.query({ name, text: STATEMENTS[name], values: [this.model, ...values] });
    return row && { ...row.payload, ...(row.consumed_at && { consumed: true }) };
  }

  upsert(id, payload, expiresIn) {
    return this.run('upsert', id, payload, payload.grantId, payload.userCode, payload.uid, expiresIn);
  }

  find(id) { return this.run('find', id); }

  findByUserCode(userCode) { return this.run('findByUserCode', userCode); }

  findByUid(uid) { return this.run('findByUid', uid); }

  consume(id) { return this.run('consume', id); }

  destroy(id) { return this.run('destroy', id); }

  revokeByGrantId(grantId) { return this.run('revokeByGrantId', grantId); }
};
