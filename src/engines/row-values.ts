/** Values of bookkeeping rows as what they are stored for: drivers give numbers and flags as one or the other. */

export type StoredRow = Readonly<Record<string, string | number | boolean | Date | Uint8Array | null>>;

export function textOf(row: StoredRow | undefined, column: string): string | null {
  const value = row?.[column] ?? null;
  return value === null ? null : String(value);
}

export function numberOf(row: StoredRow | undefined, column: string): number | null {
  const value = row?.[column] ?? null;
  return value === null ? null : Number(value);
}

export function flagOf(row: StoredRow | undefined, column: string): boolean {
  const value = row?.[column];
  return value === true || value === 1 || value === '1' || value === 't';
}
