/** The databases of a server whose changes are wanted, under the names that they are wanted by. */

export class WantedSchemas {
  /** By the server's own name of the database. */
  readonly #names: ReadonlyMap<string, string>;
  readonly #foldsNames: boolean;
  /** As they were asked for. */
  readonly all: ReadonlySet<string>;

  /** `own`: the session's database, which an empty name means. `foldsNames`: the server does not tell names apart by case. */
  constructor(schemas: readonly string[], own: string | null, foldsNames: boolean) {
    this.#foldsNames = foldsNames;
    this.#names = new Map(schemas.map((name) => [this.fold(name === '' ? (own ?? '') : name), name]));
    this.all = new Set(schemas);
  }

  /** What the database is called by those who want its changes; null: nobody does. */
  nameOf(database: string): string | null {
    return this.#names.get(this.fold(database)) ?? null;
  }

  /** Names that the server does not tell apart by case arrive as they were typed. */
  fold(name: string): string {
    return this.#foldsNames ? name.toLowerCase() : name;
  }
}
