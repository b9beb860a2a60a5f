/**
 * A stream's place in the source's log: versioned text that carries the source's incarnation (invariant 5). Opaque
 * outside its engine; only the engine that made it compares it.
 */
export type Position = string & { readonly __position: unique symbol };

/** `unordered` is never guessed into one of the others: it means that the source is not what it was. */
export type PositionOrder = 'before' | 'equal' | 'after' | 'unordered';
