/** The bench's table: a bigint key and mixed types, about 200 bytes a row. */
export const COLUMNS = ['id', 'customer', 'amount', 'ordered_at', 'details', 'note'] as const;

const DECLARED = `id bigint NOT NULL, customer nvarchar(40) NOT NULL, amount decimal(14,2) NOT NULL, ordered_at datetime2(6) NOT NULL,
  details nvarchar(200) NOT NULL, note varchar(80) NULL`;

export function createTable(name: string, options: { key: boolean }): string {
  return `DROP TABLE IF EXISTS dbo.${name}; CREATE TABLE dbo.${name} (${DECLARED}${options.key ? ', PRIMARY KEY (id)' : ''})`;
}

export function row(id: number): (string | null)[] {
  return [
    String(id),
    `customer ${(id * 7919) % 100003}`,
    `${(id * 31) % 1000000}.${String(id % 100).padStart(2, '0')}`,
    `2024-0${1 + (id % 9)}-1${id % 10} 12:${10 + (id % 50)}:00.12345${id % 10}`,
    `{"sku": ${(id * 17) % 5000}, "qty": ${id % 9}, "tags": ["a", "b${id % 50}"]}`,
    id % 5 === 0 ? null : `${id}`.padStart(8, '0').repeat(8),
  ];
}
