/** How change streams are called: `installation/server/database`, or `installation/server` where one is of all the server's databases. */

/** `database` null: the stream is of the server. */
export function streamName(installationUid: string, serverId: number, database: string | null): string {
  return `${installationUid}/${serverId}${database === null ? '' : `/${database}`}`;
}

export function databaseOf(stream: string): string | null {
  const database = stream.split('/').slice(2);
  return database.length === 0 ? null : database.join('/');
}
