/** dbaops-dataflow's tables of all times, by which its generations are told apart. Pure. */
export const OLD_TABLES = [
  'source_servers',
  'server_connections',
  'flows',
  'table_mappings',
  'config',
  'sync_status',
  'sync_logs',
  'error_logs',
  'verification_logs',
  'logs',
] as const;

export type OldTable = (typeof OLD_TABLES)[number];

/** What `table_mappings` refers to says which generation it is of: the tool's script never altered a table that was there. */
export type Layout = 'source_servers' | 'server_connections' | 'flows';

/** Columns by table, all in small letters. */
export type Columns = ReadonlyMap<string, ReadonlySet<string>>;

export interface Copy {
  readonly from: OldTable;
  readonly to: string;
  /** Column of ours → expression over the old row `o`. */
  readonly values: Readonly<Record<string, string>>;
  readonly where?: string;
  /** An old column that orders the new rows; with `keepsId` it is the number that stays. */
  readonly order: string;
  readonly keepsId?: boolean;
}

export function layoutOf(columns: Columns): Layout | null {
  const mappings = columns.get('table_mappings');
  if (mappings?.has('flow_id') && columns.has('flows')) return 'flows';
  if (mappings?.has('source_server_id') && columns.has('server_connections')) return 'server_connections';
  if (mappings?.has('server_id') && columns.has('source_servers')) return 'source_servers';
  return null;
}
