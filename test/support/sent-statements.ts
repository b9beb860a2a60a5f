/**
 * What the product has sent to SQL Servers in this run, one statement of each shape: names, numbers and texts make no other shape.
 * Tests' own sessions call themselves `sluice tests` and are left out.
 */
import { Connection as Driver, type Request } from 'tedious';

const sent = new Map<string, string>();

/** To be called once, before anything is sent. */
export function recordStatements(): void {
  for (const method of ['execSql', 'execSqlBatch'] as const) {
    // eslint-disable-next-line @typescript-eslint/unbound-method -- called on the connection below
    const original = Driver.prototype[method];
    Driver.prototype[method] = function (this: Driver, request: Request) {
      const { config } = this as unknown as { config: { options: { appName?: string } } };
      const text = request.sqlTextOrProcedure ?? '';
      if (config.options.appName !== 'sluice tests') sent.set(shapeOf(text), text);
      original.call(this, request);
    };
  }
}

export function sentStatements(): string[] {
  return [...sent.values()];
}

function shapeOf(text: string): string {
  return text
    .replace(/N?'(?:[^']|'')*'/g, `''`)
    .replace(/\[[^\]]*\]/g, '[]')
    .replace(/\b0x[0-9a-f]+/gi, '0x')
    .replace(/\d+/g, '0');
}
