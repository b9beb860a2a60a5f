/**
 * The engine contract: small capabilities, composed. An engine implements what it can; the planner asks for a
 * capability and never for an engine's name (DESIGN §6). Nothing here may assume one engine.
 *
 * Concurrency, everywhere: an `EngineDatabase` and its capabilities may be used by many jobs at once. What is *opened*
 * from them (readers, appliers, copies) is a session: one caller at a time, unless its own comment says otherwise.
 * All methods reject with SluiceError; drivers' errors never leave an engine's folder.
 */
export type * from './contract/engine.ts';
export type * from './contract/snapshot.ts';
export type * from './contract/changes.ts';
export type * from './contract/routes.ts';
export type * from './contract/groups.ts';
export type * from './contract/copies.ts';
export type * from './contract/destination.ts';
export type * from './contract/checksum.ts';
