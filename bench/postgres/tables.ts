/** The bench's table: a bigint key and mixed types, about 200 bytes a row, made by the server from the key alone. */

export const COLUMNS = `id bigint NOT NULL, customer text NOT NULL, amount numeric(14,2) NOT NULL, ordered_at timestamptz NOT NULL,
  details jsonb NOT NULL, note text`;

/** A row's values from the expression `g`; `salt` changes all but the key. */
export function values(g: string, salt = 0): string {
  return `${g}, 'customer ' || (${g} * 7919 + ${salt}) % 100003, ((${g} * 31 + ${salt}) % 100000000)::numeric / 100,
    timestamptz '2020-01-01 00:00:00Z' + (${g} * 1237 + ${salt}) % 200000000 * interval '1.000001 s',
    jsonb_build_object('sku', (${g} * 17 + ${salt}) % 5000, 'qty', ${g} % 9, 'tags', jsonb_build_array('a', 'b' || ${g} % 50)),
    CASE WHEN ${g} % 5 > 0 THEN repeat(md5((${g} + ${salt})::text), 2) END`;
}

export function createTable(name: string): string {
  return `CREATE TABLE ${name} (${COLUMNS}, PRIMARY KEY (id))`;
}

export function fill(name: string, rows: number): string {
  return `INSERT INTO ${name} SELECT ${values('g')} FROM generate_series(1::bigint, ${rows}) g`;
}

/** Rows and a sum over every value: equal on both sides exactly when the tables are. */
export function fingerprint(name: string): string {
  return `SELECT count(*) || '/' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM ${name} t`;
}
