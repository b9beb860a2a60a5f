/**
 * mocha requires each file, and imports what cannot be required (import.meta.resolve under tsx, a top-level await): of all that such a
 * file needs there would be a second instance, with servers of its own that nobody stops. Imported by whoever keeps something for the
 * whole run; then mocha says what could not be required.
 */
const MARK = Symbol.for('sluice: the support of tests');
const known = globalThis as unknown as Record<symbol, boolean | undefined>;

if (known[MARK] === true) throw new Error('the support of the tests was loaded twice');
known[MARK] = true;
