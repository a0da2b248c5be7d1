"""The tables of the asynchronous floor."""

SCHEMA = """
CREATE TABLE session_token (
    hash bytea PRIMARY KEY, tenant text NOT NULL, account text NOT NULL,
    created_at timestamptz NOT NULL, expires_at timestamptz NOT NULL, redeemed_at timestamptz);
CREATE TABLE account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant text NOT NULL, name text NOT NULL,
    status text NOT NULL, created_at timestamptz NOT NULL, UNIQUE (tenant, name));
CREATE TABLE device (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account bigint NOT NULL REFERENCES account,
    client_id text NOT NULL UNIQUE, sign_on text NOT NULL UNIQUE, information jsonb NOT NULL,
    signed_on_at timestamptz NOT NULL, fixed_expires_at timestamptz NOT NULL, ended_at timestamptz,
    generation int NOT NULL, refresh_expires_at timestamptz NOT NULL);
"""
